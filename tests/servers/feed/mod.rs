//! Teachers that answer while a run trains: the same answers, the same run, and no waiting as long as they are ahead.

mod faults;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ril::client::{ChatClient, ChatRequest, ClientConfig};
use ril::data::{Record, read_questions, read_records};
use ril::models::Qwen2_5Vl;
use ril::reward::{Judge, RewardError, RuleJudge, Sample, Verdict};
use ril::server::{TeachPlan, TeacherFeed, teach};
use ril::{
    Question, RilConfig, RilError, RilTrainer, Stage, StageMetrics, TeacherCache, TeacherSource, TrainingData,
    discriminator_from,
};
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::support::{Server, client, samples, says, student};
use crate::tiny_server::{self, Requests};

const QUESTIONS: usize = 6;
const STEPS: usize = 3;

/// A folder with questions, and a student that reads them.
struct World {
    folder: tempfile::TempDir,
    student: Qwen2_5Vl,
    questions: Vec<Question>,
    records: Vec<(usize, Record)>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions.jsonl");
        let line = |i| json!({"id": format!("q{i}"), "question": format!("What is {i} + 1?"), "answer": "7"});
        std::fs::write(&path, (0..QUESTIONS).map(|i| format!("{}\n", line(i))).collect::<String>()).unwrap();
        let student = student(&Device::flex().autodiff());
        let (questions, records) = (read_questions(&path, &student).unwrap(), read_records(&path).unwrap());
        Self { folder, student, questions, records }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("teachers.jsonl")
    }

    fn feed(&self, servers: &[(&str, &Server)]) -> Result<Arc<TeacherFeed>, RilError> {
        self.feed_telling(servers, |_, error| panic!("nothing is refused: {error}"))
    }

    /// Asks in the order of the steps.
    fn feed_telling(
        &self,
        servers: &[(&str, &Server)],
        tell: impl Fn(&str, &RilError) + Send + Sync + 'static,
    ) -> Result<Arc<TeacherFeed>, RilError> {
        let order = config().question_order(QUESTIONS);
        let records = order.iter().map(|&i| self.records[i].clone()).collect();
        let teachers = servers.iter().map(|(name, server)| (client(&[server]), plan(name))).collect();
        TeacherFeed::start(teachers, records, &self.out(), tell).map(Arc::new)
    }

    /// One request at a time.
    fn feed_one_by_one(&self, server: &Server) -> TeacherFeed {
        let one = ClientConfig { max_in_flight: 1, ..client(&[server]).config().clone() };
        let teachers = vec![(ChatClient::new(one).unwrap(), plan("big"))];
        let order = config().question_order(QUESTIONS);
        let records = order.iter().map(|&i| self.records[i].clone()).collect();
        TeacherFeed::start(teachers, records, &self.out(), |_, _| {}).unwrap()
    }

    fn trainer<J: Judge + Sync>(&self, teachers: TeacherCache, judge: J) -> RilTrainer<Qwen2_5Vl, J> {
        let discriminator = discriminator_from(self.student.clone(), 0, &Device::flex().autodiff());
        let data = TrainingData { questions: self.questions.clone(), teachers, judge };
        RilTrainer::new(self.student.clone(), Some(discriminator), data, config()).unwrap()
    }

    /// The questions of a step.
    fn turn(&self, step: usize) -> Vec<String> {
        let order = config().question_order(QUESTIONS);
        order[2 * step..2 * step + 2].iter().map(|&i| self.questions[i].text.clone()).collect()
    }
}

fn config() -> RilConfig {
    let mut config = RilConfig::ril(4, STEPS);
    config.groups.questions_per_step = 2;
    config.groups.students_per_question = 2;
    config.groups.teachers_per_question = 2;
    config
}

fn plan(teacher: &str) -> TeachPlan {
    let request = ChatRequest { temperature: Some(0.75), ..ChatRequest::new("72b", vec![]) };
    TeachPlan { teacher: teacher.into(), request, responses: 3, samples_per_request: 2, tries: 2, seed: 1 }
}

fn asked(body: &Value) -> String {
    body["messages"][0]["content"].as_str().unwrap().to_owned()
}

/// Says something else each time, by the seed.
fn teacher() -> Server {
    Server::new(|_, body| says(&(0..samples(body)).map(|i| format!("It is {} {i}", body["seed"])).collect::<Vec<_>>()))
}

fn run<J: Judge + Sync>(mut trainer: RilTrainer<Qwen2_5Vl, J>) -> Vec<StageMetrics> {
    (0..STEPS).map(|_| trainer.step().unwrap()).collect()
}

fn lines(path: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_run_is_the_same_whether_teachers_answered_before_or_meanwhile() {
    let (before, meanwhile) = (World::new(), World::new());
    let (big, other) = (teacher(), teacher());
    for (name, server) in [("big", &big), ("other", &other)] {
        let go_on = |_| ControlFlow::Continue(());
        teach(&client(&[server]), &plan(name), &before.records, &before.out(), go_on).unwrap();
    }
    // The order of the lines is an accident of the requests: the last answers to a question may have come first.
    let file = std::fs::read_to_string(before.out()).unwrap();
    let of = |teacher: &str| -> Vec<&str> { file.lines().rev().filter(|line| line.contains(teacher)).collect() };
    let turned = [of("\"teacher\":\"big\""), of("\"teacher\":\"other\"")].concat();
    assert_eq!(turned.len(), 2 * 3 * QUESTIONS);
    std::fs::write(before.out(), turned.join("\n") + "\n").unwrap();
    let cache = TeacherCache::read_for(&before.out(), &before.questions, &before.student).unwrap();
    let expected = run(before.trainer(cache, RuleJudge::default()));

    let feed = meanwhile.feed(&[("big", &big), ("other", &other)]).unwrap();
    let cache = feed.join(TeacherCache::default());
    assert_eq!(run(meanwhile.trainer(cache, RuleJudge::default())), expected);
    assert!(feed.wait(&meanwhile.questions, |_| ControlFlow::Continue(())).unwrap().is_continue());
    // Sampled texts, their usage and their settings are the same; they came in another order.
    assert_eq!(lines(&meanwhile.out()), lines(&before.out()));
}

/// Ends only when the teacher has answered about the step that comes next.
struct Waiting {
    begun: Arc<Mutex<usize>>,
    answered: Requests,
    turns: Vec<Vec<String>>,
}

impl Judge for Waiting {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let step = {
            let mut begun = self.begun.lock().unwrap();
            *begun += 1;
            *begun
        };
        let next = self.turns.get(step).cloned().unwrap_or_default();
        let has = |question: &String| self.answered.lock().unwrap().iter().any(|(_, body)| asked(body) == *question);
        wait_until(|| next.iter().all(has));
        Ok(vec![Verdict::Correct; samples.len()])
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "teacher and step are not under way at once");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The teacher answers about a step only once the judge of the step before has begun, and that judge waits for the answer: with
/// calls that come one after the other there is no end.
#[test]
fn teachers_are_asked_while_steps_are_computed() {
    let world = World::new();
    let begun = Arc::new(Mutex::new(0));
    let turns: Vec<Vec<String>> = (0..STEPS).map(|step| world.turn(step)).collect();
    let (seen, of) = (begun.clone(), turns.clone());
    let (address, answered) = tiny_server::serve(move |_, body| {
        let step = of.iter().position(|turn| turn.contains(&asked(body))).unwrap();
        wait_until(|| *seen.lock().unwrap() >= step);
        let choice = |i| json!({"index": i, "message": {"content": "It is 7"}, "finish_reason": "stop"});
        json!({"model": "72b", "choices": (0..samples(body)).map(choice).collect::<Vec<_>>()})
    });
    let client = ChatClient::new(ClientConfig::new([address])).unwrap();
    let records = config().question_order(QUESTIONS).iter().map(|&i| world.records[i].clone()).collect();
    let feed = TeacherFeed::start(vec![(client, plan("big"))], records, &world.out(), |_, _| {}).unwrap();
    let judge = Waiting { begun, answered, turns };
    run(world.trainer(Arc::new(feed).join(TeacherCache::default()), judge));
}

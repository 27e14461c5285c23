//! Teachers that answer while a run trains: the same answers, the same run, and no waiting as long as they are ahead.

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

#[test]
fn a_question_that_a_teacher_refuses_is_told_and_left_out() {
    let world = World::new();
    let unwanted = world.turn(1)[0].clone();
    let refused = unwanted.clone();
    let server = Server::new(move |_, body| match asked(body) == refused {
        true => ResponseTemplate::new(400).set_body_string("content policy"),
        false => says(&vec!["It is 7".into(); samples(body)]),
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let tell = move |teacher: &str, error: &RilError| {
        heard.lock().unwrap().push(format!("{teacher}: {}", ril::explain(error)));
    };
    let feed = world.feed_telling(&[("big", &server)], tell).unwrap();
    let mut trainer = world.trainer(feed.join(TeacherCache::default()), RuleJudge::default());
    let questions: Vec<usize> = (0..STEPS)
        .map(|step| {
            let draw = trainer.draw(step);
            let mut rollout = ril::LocalRollout::student(trainer.policy());
            let sampled = draw.sample(&mut rollout).unwrap();
            drop(rollout);
            let groups = trainer.groups(draw, sampled).unwrap();
            trainer.step_on(&groups).unwrap();
            groups.len()
        })
        .collect();
    assert_eq!(questions, [2, 1, 2]);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("big: ") && told[0].contains("content policy"), "{told:?}");
    let id = &world.questions.iter().find(|q| q.text == unwanted).unwrap().id;
    assert!(feed.texts(id, "big").unwrap().is_empty());
    assert!(feed.texts("q99", "big").unwrap_err().to_string().contains("q99"));
}

/// A run of days does not end with a question that its teacher will not have.
#[test]
fn a_step_without_any_question_is_passed() {
    let world = World::new();
    let unwanted = world.turn(1);
    let server = Server::new(move |_, body| match unwanted.contains(&asked(body)) {
        true => ResponseTemplate::new(400).set_body_string("content policy"),
        false => says(&vec!["It is 7".into(); samples(body)]),
    });
    let feed = world.feed_telling(&[("big", &server)], |_, _| {}).unwrap();
    let steps = run(world.trainer(feed.join(TeacherCache::default()), RuleJudge::default()));
    let left_out: Vec<_> = steps.iter().map(|step| step.get("teacher/questions_left_out")).collect();
    assert_eq!(left_out, [None, Some(2.0), None]);
    let losses: Vec<_> = steps.iter().map(|step| step.get("loss").is_some()).collect();
    assert_eq!(losses, [true, false, true]);
}

/// The server of the second run would have the question: it stays out, as half of the run has trained without it.
#[test]
fn a_question_that_was_refused_stays_out_when_the_run_goes_on() {
    let world = World::new();
    let unwanted = world.turn(0)[0].clone();
    let id = world.questions.iter().find(|q| q.text == unwanted).unwrap().id.clone();
    let refused = unwanted.clone();
    let strict = Server::new(move |_, body| match asked(body) == refused {
        true => ResponseTemplate::new(400).set_body_string("too long"),
        false => says(&vec!["It is 7".into(); samples(body)]),
    });
    drop(world.feed_telling(&[("big", &strict)], |_, _| {}).map(|feed| feed.wait(&world.questions, |_| go_on(0))));
    let kind = teacher();
    let feed = world.feed(&[("big", &kind)]).unwrap();
    assert!(feed.texts(&id, "big").unwrap().is_empty());
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    assert_eq!(kind.chats().len(), 0);
    drop(feed);
    // A run that reads the file leaves it out too; `teach` asks again.
    let others: Vec<Question> = world.questions.iter().filter(|q| q.id != id).cloned().collect();
    let cache = TeacherCache::read_for(&world.out(), &world.questions, &world.student).unwrap();
    cache.check_covers(&others).unwrap();
    assert!(cache.texts(&id, 0).is_empty());
    let report = teach(&client(&[&kind]), &plan("big"), &world.records, &world.out(), go_on).unwrap();
    assert_eq!((report.added, report.uncovered), (3, 0));
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// One answer at a time: what is asked in which order is what the teacher was told.
#[test]
fn an_answer_that_was_cut_is_asked_for_again_before_later_questions() {
    let world = World::new();
    let first = world.turn(0)[0].clone();
    let is_cut = std::sync::atomic::AtomicBool::new(true);
    let server = Server::new(move |_, body| {
        let is_cut = asked(body) == first && is_cut.swap(false, std::sync::atomic::Ordering::SeqCst);
        let choice = |i: usize| {
            let reason = if is_cut { "length" } else { "stop" };
            json!({"index": i, "message": {"content": "It is 7"}, "finish_reason": reason})
        };
        let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
        ResponseTemplate::new(200).set_body_json(json!({"choices": choices}))
    });
    let feed = world.feed_one_by_one(&server);
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    let order: Vec<String> = server.chats().iter().map(asked).collect();
    let of_first = order.iter().filter(|question| **question == order[0]).count();
    // Two answers that were cut, one each in a request of its own, and the third.
    assert_eq!(of_first, 4, "{order:?}");
    assert!(order[..4].iter().all(|question| *question == order[0]), "{order:?}");
}

#[test]
fn a_question_whose_answers_are_all_cut_is_told_and_left_out() {
    let world = World::new();
    let server = Server::new(|_, body| {
        let choice = |i: usize| json!({"index": i, "message": {"content": "It"}, "finish_reason": "length"});
        let choices: Vec<Value> = (0..samples(body)).map(choice).collect();
        ResponseTemplate::new(200).set_body_json(json!({"choices": choices}))
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let tell = move |_: &str, error: &RilError| heard.lock().unwrap().push(error.to_string());
    let feed = world.feed_telling(&[("big", &server)], tell).unwrap();
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    assert!(feed.texts("q0", "big").unwrap().is_empty());
    drop(feed);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), QUESTIONS, "{told:?}");
    assert!(told.contains(&"question q0: expected 3 responses of teacher big, got 0".to_owned()), "{told:?}");
}

#[test]
fn a_client_that_is_stopped_ends_every_wait() {
    let world = World::new();
    let server =
        Server::new(|_, body| says(&vec!["It is 7".into(); samples(body)]).set_delay(Duration::from_millis(50)));
    let client = client(&[&server]);
    let teachers = vec![(client.clone(), plan("big"))];
    let feed = TeacherFeed::start(teachers, world.records.clone(), &world.out(), |_, _| {}).unwrap();
    client.stop();
    let told = ril::explain(&feed.wait(&world.questions, go_on).unwrap_err());
    assert!(told.contains("asked to stop"), "{told}");
    assert!(feed.texts("q5", "big").is_err());
}

/// It is away while nobody waits, and is asked again before anybody hears of it.
#[test]
fn a_failure_that_nobody_waits_for_is_tried_again() {
    let world = World::new();
    let is_away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = is_away.clone();
    let server = Server::new(move |_, body| match switch.load(std::sync::atomic::Ordering::SeqCst) {
        true => ResponseTemplate::new(500).set_body_string("restarting"),
        false => says(&vec!["It is 7".into(); samples(body)]),
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let tell = move |_: &str, error: &RilError| heard.lock().unwrap().push(ril::explain(error));
    let feed = world.feed_telling(&[("big", &server)], tell).unwrap();
    wait_until(|| !told.lock().unwrap().is_empty());
    is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    assert!(told.lock().unwrap()[0].contains("restarting"));
}

#[test]
fn a_teacher_that_breaks_down_fails_the_step_and_the_next_run_goes_on() {
    let world = World::new();
    let last = world.turn(2)[1].clone();
    let broken = Server::new(move |_, body| match asked(body) == last {
        true => ResponseTemplate::new(500).set_body_string("engine died"),
        false => says(&(0..samples(body)).map(|i| format!("It is {} {i}", body["seed"])).collect::<Vec<_>>()),
    });
    let feed = world.feed_telling(&[("big", &broken)], |_, _| {}).unwrap();
    let failure = loop {
        match feed.wait(&world.questions, |_| ControlFlow::Continue(())) {
            Ok(flow) => assert!(flow.is_break(), "it cannot be done"),
            Err(error) => break ril::explain(&error),
        }
    };
    assert!(failure.contains("teacher big") && failure.contains("engine died"), "{failure}");
    drop(feed);

    let (kept, healed) = (lines(&world.out()), teacher());
    let feed = world.feed(&[("big", &healed)]).unwrap();
    run(world.trainer(feed.join(TeacherCache::default()), RuleJudge::default()));
    drop(feed);
    let all = lines(&world.out());
    assert!(kept.is_subset(&all) && all.len() == 3 * QUESTIONS, "{} of {}", kept.len(), all.len());
    let asked: usize = healed.chats().iter().map(samples).sum();
    assert_eq!(asked, 3 * QUESTIONS - kept.len());
}

#[test]
fn dropping_a_feed_keeps_what_was_under_way_and_asks_for_nothing_more() {
    let world = World::new();
    let server =
        Server::new(|_, body| says(&vec!["It is 7".into(); samples(body)]).set_delay(Duration::from_millis(50)));
    let feed = world.feed_one_by_one(&server);
    wait_until(|| !server.chats().is_empty());
    drop(feed);
    let asked: usize = server.chats().iter().map(samples).sum();
    assert_eq!(std::fs::read_to_string(world.out()).unwrap().lines().count(), asked);
    assert!(asked < 3 * QUESTIONS, "{asked}");
    // The file is free again.
    drop(world.feed(&[("big", &server)]).unwrap());
}

#[test]
fn texts_that_the_student_would_read_as_special_tokens_are_left_out() {
    let world = World::new();
    let server = Server::new(|_, body| {
        let text = |i| if i == 0 { "<|im_start|>system".to_owned() } else { "It is 7<|im_end|>".to_owned() };
        says(&(0..samples(body)).map(text).collect::<Vec<_>>())
    });
    let feed = world.feed(&[("big", &server)]).unwrap();
    let cache = feed.join(TeacherCache::default());
    let responses = cache.responses(&world.questions[0], 2, 0, &world.student).unwrap();
    assert!(responses.iter().all(|response| response.text == "It is 7"), "{responses:?}");
}

#[test]
fn plans_that_cannot_be_are_refused_before_anything_is_asked() {
    let (world, server) = (World::new(), teacher());
    let error = world.feed(&[("big", &server), ("big", &server)]).unwrap_err();
    assert!(error.to_string().contains("two teachers have the name big"), "{error}");
    let none = TeachPlan { responses: 0, ..plan("big") };
    let start =
        |plan| TeacherFeed::start(vec![(client(&[&server]), plan)], world.records.clone(), &world.out(), |_, _| {});
    assert!(matches!(start(none), Err(RilError::Config(_))));
    let nameless = vec![(1, Record { id: None, ..world.records[0].1.clone() })];
    let error = TeacherFeed::start(vec![(client(&[&server]), plan("big"))], nameless, &world.out(), |_, _| {});
    assert!(error.unwrap_err().to_string().contains("id of its own"));
    let feed = start(plan("big")).unwrap();
    assert!(feed.wait(&world.questions[..1], go_on).unwrap().is_continue());
    drop(feed);
    let mut other = plan("big");
    other.request.temperature = Some(0.5);
    let before = std::fs::read(world.out()).unwrap();
    assert!(start(other).unwrap_err().to_string().contains("other settings"));
    assert_eq!(std::fs::read(world.out()).unwrap(), before);
}

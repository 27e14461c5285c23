//! Teachers that answer while a run trains.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ril_client::ChatClient;

use super::lesson::{Lesson, Line, Listener, id};
use super::teach::TeachPlan;
use crate::data::Record;
use crate::error::RilError;
use crate::group::Question;
use crate::journal::Journal;
use crate::teacher::{TeacherCache, TeacherSource};

/// How often a wait tells its progress, and a rest looks whether somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a teacher rests after a failure while nobody waits for it.
const REST: Duration = Duration::from_secs(60);

/// Teachers behind servers that answer while a run trains, in the order of the questions that they were given.
///
/// Each teacher has a thread, which keeps as many requests under way as its client allows and appends the answers to a file, as
/// [`teach`](super::teach) does and with the same seeds. Nothing that is in the file is asked again. A run waits for a question's
/// answers only when their turn comes: give the questions in the order of the steps
/// ([`RilConfig::question_order`](crate::RilConfig::question_order)), and the teachers work while the run samples, judges and trains.
///
/// A question that a server refuses has no answers, and stays without: the file says so, so that a run that goes on trains on the same
/// questions. A failure is told and tried again every minute as long as nobody waits for an answer; whoever waits hears of it.
///
/// Dropping it asks for nothing more, and waits for the answers that are under way. Its clients are stopped then, and so are their
/// clones: give it clients of its own.
pub struct TeacherFeed {
    shared: Arc<Shared>,
    teachers: Vec<String>,
    clients: Vec<ChatClient>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for TeacherFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeacherFeed").field("teachers", &self.teachers).finish_non_exhaustive()
    }
}

/// Hears of failures and of questions that are left out: the teacher's name, and why.
type Tell = Box<dyn Fn(&str, &RilError) + Send + Sync>;

/// What the teachers' threads and the run have in common.
struct Shared {
    questions: HashSet<String>,
    journal: Mutex<Journal>,
    answers: Mutex<Answers>,
    changed: Condvar,
    /// Calls that wait for answers, by teacher.
    waiting: HashMap<String, AtomicUsize>,
    is_stopped: AtomicBool,
    tell: Tell,
}

/// One of the calls that wait for a teacher.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Answers {
    /// By teacher and question; those that nothing will be added to.
    settled: HashMap<String, HashMap<String, Arc<[String]>>>,
    /// Why a teacher answers no more, before all was settled.
    failures: HashMap<String, Arc<RilError>>,
}

impl Shared {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, teacher: &str, question: &str, texts: Vec<String>) {
        let mut answers = self.answers();
        answers.settled.entry(teacher.to_owned()).or_default().insert(question.to_owned(), texts.into());
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn is_waited_for(&self, teacher: &str) -> bool {
        self.waiting[teacher].load(Ordering::SeqCst) > 0
    }

    /// Rests after a failure, until somebody waits.
    fn rest(&self, teacher: &str) {
        let until = Instant::now() + REST;
        while !self.is_waited_for(teacher) && !self.is_stopped() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn fail(&self, teacher: &str, error: RilError) {
        self.answers().failures.insert(teacher.to_owned(), Arc::new(error));
        self.changed.notify_all();
    }
}

impl TeacherFeed {
    /// Begins to ask the teachers about the questions, in this order. `tell` hears, from their threads and with the teacher's
    /// name, of each question that has no answer of use, because its server refuses it (400, 413, 422) or all answers were cut: a run leaves it
    /// out; and of each failure.
    ///
    /// # Errors
    /// [`RilError::Config`] for a plan that is empty, two plans of one name, a question without an id of its own, or answers in the file
    /// under other settings; the file's own.
    pub fn start(
        teachers: Vec<(ChatClient, TeachPlan)>,
        records: Vec<(usize, Record)>,
        out: &Path,
        tell: impl Fn(&str, &RilError) + Send + Sync + 'static,
    ) -> Result<Self, RilError> {
        let (journal, lines) = Journal::open::<Line>(out)?;
        let mut names = Vec::new();
        for (_, plan) in &teachers {
            plan.validate()?;
            if names.contains(&plan.teacher) {
                return Err(RilError::Config(format!("two teachers have the name {}", plan.teacher)));
            }
            Lesson::new(plan, &records, &lines, out)?;
            names.push(plan.teacher.clone());
        }
        let shared = Arc::new(Shared {
            questions: records.iter().map(|(_, record)| id(record).to_owned()).collect(),
            journal: Mutex::new(journal),
            answers: Mutex::default(),
            changed: Condvar::new(),
            waiting: names.iter().map(|name| (name.clone(), AtomicUsize::new(0))).collect(),
            is_stopped: AtomicBool::new(false),
            tell: Box::new(tell),
        });
        let clients = teachers.iter().map(|(client, _)| client.clone()).collect();
        let (lines, records) = (Arc::new(lines), Arc::new(records));
        let begin = |(client, plan): (ChatClient, TeachPlan)| {
            let teacher = Teacher { shared: shared.clone(), client, plan, records: records.clone(), out: out.into() };
            let lines = lines.clone();
            std::thread::spawn(move || teacher.carry_out(lines))
        };
        let threads = teachers.into_iter().map(begin).collect();
        Ok(Self { shared, teachers: names, clients, threads })
    }

    /// Names of the teachers, in the order of the plans.
    #[must_use]
    pub fn teachers(&self) -> &[String] {
        &self.teachers
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// `cache` with these teachers, who answer from here.
    #[must_use]
    pub fn join(self: &Arc<Self>, cache: TeacherCache) -> TeacherCache {
        let source: Arc<dyn TeacherSource> = self.clone();
        self.teachers.iter().fold(cache, |cache, teacher| cache.with_source(teacher, source.clone()))
    }

    /// Waits until these questions have all the answers that they will get. `progress` hears of how many of them that is true, and may
    /// end the wait; the teachers go on then.
    ///
    /// # Errors
    /// [`RilError::Teacher`] for the first teacher that answers no more before that; [`RilError::Input`] for a question that is none of
    /// theirs.
    pub fn wait(
        &self,
        questions: &[Question],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RilError> {
        if let Some(other) = questions.iter().find(|question| !self.shared.questions.contains(&question.id)) {
            return Err(RilError::Input(format!("question {} is none that the teachers are asked", other.id)));
        }
        let _waiting: Vec<Waiting<'_>> = self.shared.waiting.values().map(Waiting::new).collect();
        loop {
            let answers = self.shared.answers();
            let is_settled = |teacher: &String, question: &Question| {
                answers.settled.get(teacher).is_some_and(|of| of.contains_key(&question.id))
            };
            let open = |teacher: &&String| questions.iter().any(|question| !is_settled(teacher, question));
            let waiting = self.teachers.iter().filter(open).find_map(|name| Some((name, answers.failures.get(name)?)));
            if let Some((name, error)) = waiting {
                return Err(failed(name, error));
            }
            let is_done = |question: &&Question| self.teachers.iter().all(|teacher| is_settled(teacher, question));
            let done = questions.iter().filter(is_done).count();
            drop(answers);
            let flow = progress(done);
            if done == questions.len() {
                return Ok(ControlFlow::Continue(()));
            }
            if flow.is_break() {
                return Ok(flow);
            }
            drop(self.shared.changed.wait_timeout(self.shared.answers(), LOOK_EVERY));
        }
    }
}

fn failed(teacher: &str, error: &Arc<RilError>) -> RilError {
    RilError::Teacher { teacher: teacher.to_owned(), source: error.clone() }
}

impl TeacherSource for TeacherFeed {
    fn texts(&self, question: &str, teacher: &str) -> Result<Vec<String>, RilError> {
        if !self.shared.questions.contains(question) || !self.teachers.iter().any(|name| name == teacher) {
            return Err(RilError::Input(format!("question {question} is none that teacher {teacher} is asked")));
        }
        let _waiting = Waiting::new(&self.shared.waiting[teacher]);
        let mut answers = self.shared.answers();
        loop {
            if let Some(texts) = answers.settled.get(teacher).and_then(|of| of.get(question)) {
                return Ok(texts.to_vec());
            }
            if let Some(error) = answers.failures.get(teacher) {
                return Err(failed(teacher, error));
            }
            answers = self.shared.changed.wait(answers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for TeacherFeed {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.clients.iter().for_each(ChatClient::stop);
        for thread in self.threads.drain(..) {
            // What went wrong in it has been told to whoever waited.
            let _ = thread.join();
        }
    }
}

/// What a teacher's thread works with.
struct Teacher {
    shared: Arc<Shared>,
    client: ChatClient,
    plan: TeachPlan,
    records: Arc<Vec<(usize, Record)>>,
    out: PathBuf,
}

impl Teacher {
    fn carry_out(&self, lines: Arc<Vec<Line>>) {
        // Whoever waits for an answer must hear of it.
        let done = catch_unwind(AssertUnwindSafe(|| self.ask_all(lines)));
        let done = done.unwrap_or_else(|_| Err(RilError::Input("its thread panicked".into())));
        let stored = self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner).sync();
        if let Err(error) = done.and(stored) {
            self.shared.fail(&self.plan.teacher, error);
        }
    }

    fn ask_all(&self, lines: Arc<Vec<Line>>) -> Result<(), RilError> {
        let mut lesson = Lesson::new(&self.plan, &self.records, &lines, &self.out)?;
        drop(lines);
        for (_, record) in self.records.iter() {
            self.settle(&lesson, id(record));
        }
        loop {
            let error = match lesson.carry_out(&self.client, &mut &*self) {
                Ok(()) if !lesson.is_interrupted() => return Ok(()),
                Ok(()) => return Err(RilError::Input("it was asked to stop".into())),
                Err(error) => error,
            };
            // Whoever waits hears of it; for who comes later it is tried once more.
            let is_over = self.shared.is_waited_for(&self.plan.teacher);
            (self.shared.tell)(&self.plan.teacher, &error);
            if is_over {
                return Err(error);
            }
            self.shared.rest(&self.plan.teacher);
            if self.shared.is_stopped() {
                return Err(error);
            }
        }
    }

    /// Number of the texts that there are of a question; `None` while some may still come.
    fn settle(&self, lesson: &Lesson<'_>, question: &str) -> Option<usize> {
        let texts: Vec<String> = lesson.is_settled(question).then(|| lesson.texts(question).cloned().collect())?;
        let count = texts.len();
        self.shared.settle(&self.plan.teacher, question, texts);
        Some(count)
    }
}

impl Listener for &Teacher {
    fn keep(&mut self, lines: &[Line]) -> Result<(), RilError> {
        self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner).extend(lines)
    }

    fn answered(&mut self, lesson: &Lesson<'_>, question: &str) -> ControlFlow<()> {
        if self.settle(lesson, question) == Some(0) {
            let (question, teacher) = (question.to_owned(), self.plan.teacher.clone());
            let error = RilError::TeacherResponses { question, teacher, expected: self.plan.responses, got: 0 };
            (self.shared.tell)(&self.plan.teacher, &error);
        }
        if self.shared.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn refused(&mut self, question: &str, error: RilError) -> Result<(), RilError> {
        self.keep(&[Line::refused(&self.plan, question)])?;
        (self.shared.tell)(&self.plan.teacher, &error);
        self.shared.settle(&self.plan.teacher, question, Vec::new());
        Ok(())
    }
}

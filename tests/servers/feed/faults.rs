//! Teachers that refuse, break off, are away: the run goes on, or says why not, and nothing is lost.

use super::*;

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

/// The second of two requests is refused: what the first one gave counts for nobody, and is not told twice.
#[test]
fn a_question_that_is_refused_in_part_is_left_out_by_all_readers() {
    let world = World::new();
    let unwanted = world.turn(1)[0].clone();
    let id = world.questions.iter().find(|q| q.text == unwanted).unwrap().id.clone();
    let server = Server::new(move |_, body| match asked(body) == unwanted && samples(body) == 1 {
        true => ResponseTemplate::new(400).set_body_string("too long"),
        false => says(&vec!["It is 7".into(); samples(body)]),
    });
    let told = Arc::new(Mutex::new(0));
    let heard = told.clone();
    let feed = world.feed_telling(&[("big", &server)], move |_, _| *heard.lock().unwrap() += 1).unwrap();
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    assert!(feed.texts(&id, "big").unwrap().is_empty());
    drop(feed);
    assert_eq!(*told.lock().unwrap(), 1);
    let read = || TeacherCache::read_for(&world.out(), &world.questions, &world.student).unwrap();
    assert!(read().texts(&id, 0).is_empty());
    // Answers that came later count for all.
    let report = teach(&client(&[&teacher()]), &plan("big"), &world.records, &world.out(), go_on).unwrap();
    assert_eq!(report.uncovered, 0);
    let texts = read().texts(&id, 0).to_vec();
    assert_eq!(texts.len(), 3);
    let feed = world.feed(&[("big", &server)]).unwrap();
    assert_eq!(feed.texts(&id, "big").unwrap(), texts);
}

/// A server without that model, or without a budget, says 400 as well: no question is given up for that.
#[test]
fn a_server_that_refuses_everything_has_failed() {
    let world = World::new();
    let server = Server::new(|_, _| ResponseTemplate::new(400).set_body_string("unknown model 72b"));
    let feed = world.feed_telling(&[("big", &server)], |_, _| {}).unwrap();
    let told = ril::explain(&feed.wait(&world.questions[..1], go_on).unwrap_err());
    assert!(told.contains("unknown model 72b"), "{told}");
    drop(feed);
    assert_eq!(std::fs::read_to_string(world.out()).unwrap(), "");
    let feed = world.feed(&[("big", &teacher())]).unwrap();
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    assert!(!feed.texts("q0", "big").unwrap().is_empty());
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// One request at a time, and slow.
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
        let response = ResponseTemplate::new(200).set_body_json(json!({"choices": choices}));
        response.set_delay(Duration::from_millis(20))
    });
    let feed = world.feed_one_by_one(&server);
    assert!(feed.wait(&world.questions, go_on).unwrap().is_continue());
    let order: Vec<String> = server.chats().iter().map(asked).collect();
    let of_first = order.iter().filter(|question| **question == order[0]).count();
    // Two answers that were cut, then each in a request of its own, and the third.
    assert_eq!((of_first, order.len()), (4, 2 * QUESTIONS + 2), "{order:?}");
    // A request or two may have begun before the answer was read; at the end of the list they would be the last.
    let last = order.iter().rposition(|question| *question == order[0]).unwrap();
    assert!(last < QUESTIONS + 2, "{order:?}");
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

//! Adapters that follow the student, on one server and on several.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::tensor::Device;
use ril::server::{AdapterFolder, ServerRollout, ServerRolloutConfig};
use ril::{RilError, Rollout};
use serde_json::json;
use wiremock::ResponseTemplate;

use crate::rollout::{config, engine, engine_answers, params, questions};
use crate::support::{Server, client, student};

/// Two servers, the second of which may refuse adapters.
fn two_engines() -> (Server, Server, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(false));
    let (switch, healthy) = (refuses.clone(), engine());
    let second = Server::new(move |path, _| match path == "/v1/load_lora_adapter" && switch.load(Ordering::SeqCst) {
        true => ResponseTemplate::new(400).set_body_string("rank 64 is above max_lora_rank 16"),
        false => ResponseTemplate::new(200).set_body_string("Success"),
    });
    (healthy, second, refuses)
}

#[test]
fn adapters_follow_the_student_on_every_server() {
    let (one, two, refuses) = two_engines();
    let folder = tempfile::tempdir().unwrap();
    let folders = AdapterFolder { here: folder.path().to_path_buf(), at_server: "/mnt/adapters".into() };
    let config = ServerRolloutConfig { adapter_folder: Some(folders), ..config() };
    let mut rollout = ServerRollout::new(client(&[&one, &two]), config, &[]);
    let save = |path: &Path| {
        std::fs::create_dir_all(path).map_err(RilError::io(path))?;
        std::fs::write(path.join("adapter_config.json"), "{}").map_err(RilError::io(path))
    };
    rollout.push_adapter(1, save).unwrap();
    rollout.push_adapter(2, save).unwrap();
    for server in [&one, &two] {
        let loaded = server.requests("/v1/load_lora_adapter");
        let path = "/mnt/adapters/student-step-2";
        let expected = json!({"lora_name": "student-step-2", "lora_path": path, "load_inplace": true});
        assert_eq!((loaded.len(), &loaded[1]), (2, &expected));
        let unloaded = server.requests("/v1/unload_lora_adapter");
        assert_eq!(unloaded.last().unwrap()["lora_name"], "student-step-1");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["student-step-2"]);
    assert_eq!(rollout.policy_step(), 2);

    // One refuses: all go on with the adapter that all have.
    refuses.store(true, Ordering::SeqCst);
    let told = ril::explain(&rollout.push_adapter(3, save).unwrap_err());
    assert!(told.contains("load_lora_adapter") && told.contains("max_lora_rank"), "{told}");
    assert_eq!(one.requests("/v1/unload_lora_adapter").last().unwrap()["lora_name"], "student-step-3");
    assert_eq!(rollout.policy_step(), 2);
    let student = student(&Device::flex());
    let mut alone = rollout;
    let _ = alone.sample(&questions(&student)[..1], &params());
    let asked = [one.chats(), two.chats()].concat();
    assert_eq!(asked[0]["model"], "student-step-2");
}

#[test]
fn prefixes_of_adapters_are_never_the_same() {
    let mut prefixes: Vec<String> = (0..1_000).map(|_| ServerRolloutConfig::new_prefix("ril")).collect();
    assert!(prefixes[0].starts_with("ril-"), "{}", prefixes[0]);
    prefixes.sort_unstable();
    prefixes.dedup();
    assert_eq!(prefixes.len(), 1_000);
}

/// A server that can be started anew.
struct Replica {
    server: Server,
    has_adapter: Arc<AtomicBool>,
    /// Requests for samples that it answered.
    answered: Arc<AtomicUsize>,
}

impl Replica {
    /// One that knows its adapter once it was loaded, or never.
    fn new(takes_adapters: bool) -> Self {
        let (has_adapter, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (switch, count, inner) = (has_adapter.clone(), answered.clone(), engine_answers());
        let server = Server::new(move |path, body| match path {
            "/v1/load_lora_adapter" => {
                switch.store(takes_adapters, Ordering::SeqCst);
                ResponseTemplate::new(200).set_body_string("Success")
            }
            "/v1/chat/completions" if !switch.load(Ordering::SeqCst) => {
                ResponseTemplate::new(404).set_body_string("The model `student-step-1` does not exist.")
            }
            _ => {
                count.fetch_add(usize::from(path == "/v1/chat/completions"), Ordering::SeqCst);
                inner(path, body)
            }
        });
        Self { server, has_adapter, answered }
    }

    fn start_anew(&self) {
        self.has_adapter.store(false, Ordering::SeqCst);
    }

    fn loads(&self) -> usize {
        self.server.requests("/v1/load_lora_adapter").len()
    }
}

/// A rollout whose adapter was pushed to each, with a request for each sample.
fn pushed(replicas: &[&Replica]) -> ServerRollout {
    // Nothing is read from it, or written to it, once it was pushed.
    let folder = tempfile::tempdir().unwrap();
    let folders = AdapterFolder { here: folder.path().to_path_buf(), at_server: "/mnt/adapters".into() };
    let config = ServerRolloutConfig { adapter_folder: Some(folders), samples_per_request: Some(1), ..config() };
    let servers: Vec<&Server> = replicas.iter().map(|replica| &replica.server).collect();
    let mut rollout = ServerRollout::new(client(&servers), config, &[]);
    rollout.push_adapter(1, |path| std::fs::create_dir_all(path).map_err(RilError::io(path))).unwrap();
    rollout
}

/// Draws as many samples as were asked for, and counts the requests that all servers have answered.
fn sample(rollout: &mut ServerRollout, replicas: &[&Replica]) -> usize {
    let answers = rollout.sample(&questions(&student(&Device::flex())), &params()).unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    replicas.iter().map(|replica| replica.answered.load(Ordering::SeqCst)).sum()
}

#[test]
fn a_server_that_was_started_anew_is_given_the_adapter_again() {
    let replica = Replica::new(true);
    let mut rollout = pushed(&[&replica]);
    replica.start_anew();
    assert_eq!(sample(&mut rollout, &[&replica]), 6);
    assert_eq!(replica.loads(), 2);
    let again = replica.server.requests("/v1/load_lora_adapter");
    assert_eq!(again[0], again[1]);
}

#[test]
fn only_the_server_that_lacks_the_adapter_is_given_it_again() {
    for lacking in [0, 1] {
        let replicas = [&Replica::new(true), &Replica::new(true)];
        let mut rollout = pushed(&replicas);
        replicas[lacking].start_anew();
        // What the other one has answered is not asked again.
        assert_eq!(sample(&mut rollout, &replicas), 6);
        assert_eq!(replicas.map(Replica::loads), [1 + usize::from(lacking == 0), 1 + usize::from(lacking == 1)]);
    }
}

#[test]
fn every_server_may_have_been_started_anew() {
    let replicas = [&Replica::new(true), &Replica::new(true), &Replica::new(true)];
    let mut rollout = pushed(&replicas);
    replicas.iter().for_each(|replica| replica.start_anew());
    assert_eq!(sample(&mut rollout, &replicas), 6);
    assert_eq!(replicas.map(Replica::loads), [2; 3]);
}

/// A 404 that loading does not mend is the server's last word.
#[test]
fn a_server_that_never_finds_its_adapter_is_an_error() {
    let replicas = [&Replica::new(false), &Replica::new(false)];
    let mut rollout = pushed(&replicas);
    let error = rollout.sample(&questions(&student(&Device::flex())), &params()).unwrap_err();
    assert!(ril::explain(&error).contains("`student-step-1` does not exist"), "{}", ril::explain(&error));
    let loads = replicas.map(Replica::loads);
    assert!(loads.iter().all(|loads| (1..=2).contains(loads)) && loads.contains(&2), "{loads:?}");
    // Three rounds at the most, of six requests.
    let asked: usize = replicas.iter().map(|replica| replica.server.chats().len()).sum();
    assert!(asked <= 3 * 6, "{asked}");
}

//! The judge and the discriminator work at the same time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ril::models::nn::kv_cache::KvCache;
use ril::models::{CausalLm, ChatModel, Message, ModelError, ModelInput, Qwen2_5Vl};
use ril::reward::{Judge, RewardError, Sample, Verdict};
use ril::{LocalRollout, RilTrainer, TrainingData, discriminator_from};

use crate::support::{config, questions_and_teachers, student};

/// Where two who work at the same time meet. Each waits for the other, so that neither gets past it alone.
struct Meeting {
    /// Who has come; `None` while nobody is expected.
    here: Mutex<Option<[bool; 2]>>,
    arrival: Condvar,
}

impl Meeting {
    /// Whoever comes from now on waits for the other.
    fn call(&self) {
        *self.here.lock().unwrap() = Some([false; 2]);
    }

    /// Whether the other has come, or nobody is expected.
    fn attend(&self, who: usize) -> bool {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(present) = here.as_mut() else { return true };
        present[who] = true;
        self.arrival.notify_all();
        // Only a loop that runs one after the other waits for as long.
        let is_alone = |here: &mut Option<[bool; 2]>| here.is_some_and(|present| present.contains(&false));
        let (_here, waited) = self.arrival.wait_timeout_while(here, Duration::from_secs(30), is_alone).unwrap();
        !waited.timed_out()
    }
}

static MEETING: Meeting = Meeting { here: Mutex::new(None), arrival: Condvar::new() };
const JUDGE: usize = 0;
const MODEL: usize = 1;

struct Meets;

impl Judge for Meets {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        assert!(MEETING.attend(JUDGE), "the judge is asked while nothing else is done");
        Ok(vec![Verdict::Correct; samples.len()])
    }
}

/// A student whose every forward pass comes to the meeting.
#[derive(Module, Debug)]
struct Meeter {
    model: Qwen2_5Vl,
}

impl CausalLm for Meeter {
    fn hidden_states(&self, input: &ModelInput, cache: Option<&mut KvCache>) -> Result<Tensor<3>, ModelError> {
        assert!(MEETING.attend(MODEL), "a model computes while the judge is not asked");
        self.model.hidden_states(input, cache)
    }

    fn head_weight(&self) -> Tensor<2> {
        self.model.head_weight()
    }

    fn new_cache(&self, rows: usize, capacity: usize) -> KvCache {
        self.model.new_cache(rows, capacity)
    }

    fn forbidden_ids(&self) -> &[u32] {
        self.model.forbidden_ids()
    }

    fn device(&self) -> Device {
        self.model.device()
    }
}

impl ChatModel for Meeter {
    fn encode(&self, messages: &[Message]) -> Result<ModelInput, ModelError> {
        self.model.encode(messages)
    }

    fn encode_response(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.model.encode_response(text)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.model.decode(token_ids)
    }

    fn stop_ids(&self) -> &[u32] {
        self.model.stop_ids()
    }
}

/// After the samples are drawn, the first forward pass of a step is the discriminator's: the policy's come when the verdicts are
/// there. The step ends only when judge and discriminator are under way at once.
#[test]
fn the_judge_is_asked_while_the_discriminator_trains() {
    let (questions, teachers) = questions_and_teachers(&student());
    let model = Meeter { model: student() };
    let discriminator = discriminator_from(model.clone(), 5, &Device::flex().autodiff());
    let data = TrainingData { questions, teachers, judge: Meets };
    let mut trainer = RilTrainer::new(model, Some(discriminator), data, config()).unwrap();
    let groups = trainer.collect(&mut LocalRollout::student(trainer.policy())).unwrap();
    MEETING.call();
    let metrics = trainer.step_on(&groups).unwrap();
    assert_eq!(metrics.get("reward/answer"), Some(1.0));
    assert!(metrics.get("discriminator/accuracy").is_some());
}

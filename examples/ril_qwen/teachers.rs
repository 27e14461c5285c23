//! `--train-teachers`: the two toy teachers, each fine-tuned on its own style of answering.

use burn::tensor::Device;
use ril::models::checkpoint::WeightType;
use ril::models::ChatModel;
use ril::monitor::Monitor;
use ril::{OptimizerSettings, RilError, SftConfig, SftExample, SftTrainer, Stage};

use crate::data::{Mix, Split, generate};
use crate::models::{TEACHER, fresh, questions};
use crate::task::{SftMixture, Style};
use crate::vocabulary::Vocabulary;
use crate::world::teacher_folder;

const EXAMPLES: usize = 20_000;
const STEPS: usize = 2000;

/// Trains both and stores them beside this example; about half an hour on two cores.
pub fn train(seed: u64, device: &Device, monitor: &mut Monitor) -> Result<(), RilError> {
    for (i, (name, style)) in [("teacher_a", Style::A), ("teacher_b", Style::B)].into_iter().enumerate() {
        let seed = seed + 100 + i as u64;
        let model = fresh(TEACHER, &Vocabulary::new(), seed, &device.clone().autodiff())?;
        let examples = generate(Split::Train, EXAMPLES, seed, &Mix::default());
        let answers = SftMixture::only(style).answers(&examples, seed);
        let examples = questions(&model, &examples, name)?.into_iter().zip(answers).map(|(question, answer)| {
            Ok(SftExample { prompt: question.prompt, completion: model.encode_response(&answer)? })
        });
        let examples = examples.collect::<Result<_, RilError>>()?;
        let optimizer = OptimizerSettings {
            final_learning_rate: 1e-4,
            weight_decay: 0.01,
            ..OptimizerSettings::constant(2e-3)
        };
        let config = SftConfig { rows_per_step: 64, total_steps: STEPS, optimizer, seed };
        let mut trainer = SftTrainer::new(model, examples, config)?;
        monitor.start(name, trainer.total_steps(), 0);
        while trainer.next_step() < trainer.total_steps() {
            let metrics = trainer.step()?;
            monitor.step(trainer.next_step(), metrics.as_slice());
        }
        monitor.finish();
        // Half the bytes; rounding changes hardly an answer, and the run measures what it loads.
        trainer.model().save(&teacher_folder(name), WeightType::Bf16)?;
    }
    Ok(())
}

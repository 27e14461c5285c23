//! `--train-teachers`: the two toy teachers, each with its own style of answering.

use burn::tensor::Device;
use ril::models::checkpoint::WeightType;
use ril::monitor::{Monitor, MonitorMode};
use ril::{RilError, SftTrainer, Stage};

use crate::lessons;
use crate::models::{TEACHER, fresh};
use crate::task::Style;
use crate::vocabulary::Vocabulary;
use crate::world::teacher_folder;

/// Trains both, side by side, and stores them beside this example; about ten minutes on two cores.
pub fn train(seed: u64, device: &Device, monitor: &mut Monitor) -> Result<(), RilError> {
    std::thread::scope(|scope| {
        let other = scope
            .spawn(|| train_one("teacher_b", Style::B, seed + 101, device, &mut Monitor::new(MonitorMode::Silent)));
        train_one("teacher_a", Style::A, seed + 100, device, monitor)?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn train_one(name: &str, style: Style, seed: u64, device: &Device, monitor: &mut Monitor) -> Result<(), RilError> {
    let mut model = fresh(TEACHER, &Vocabulary::new(), seed, &device.clone().autodiff())?;
    for lesson in lessons::teacher(name, style, seed) {
        let (examples, config) = lesson.prepare(&model)?;
        let mut trainer = SftTrainer::new(model, examples, config)?;
        monitor.start(&lesson.name, trainer.total_steps(), 0);
        while trainer.next_step() < trainer.total_steps() {
            let metrics = trainer.step()?;
            monitor.step(trainer.next_step(), metrics.as_slice());
        }
        monitor.finish();
        model = trainer.into_model();
    }
    // Half the bytes; rounding changes hardly an answer, and a run measures what it loads.
    Ok(model.save(&teacher_folder(name), WeightType::Bf16)?)
}

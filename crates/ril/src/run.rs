//! A run folder: stages that can be killed and resumed, their metrics, their results.
//!
//! ```text
//! RUN/metrics.jsonl            one line a step: stage, step, numbers; no timings, so that equal runs are equal files
//! RUN/timings.jsonl            seconds of each step
//! RUN/checkpoints/STAGE/step-N weights and optimizer state, the newest two of a stage whose result is not stored yet
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ril_models::files::{rename_synced, sync_folder, write_atomic};
use serde_json::{Map, Value, json};

use crate::error::{RilError, explain};
use crate::monitor::Monitor;
use crate::stage::{Stage, StageMetrics};

/// Name of the file with every step's numbers.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Name of the file with every step's seconds.
pub const TIMINGS_FILE: &str = "timings.jsonl";

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The user asked to stop; a checkpoint holds what was done.
    Interrupted,
}

/// A folder that holds everything about one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    checkpoint_every: usize,
}

impl RunFolder {
    /// Opens or creates a folder; a stage is saved every `checkpoint_every` steps.
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn open(path: &Path, checkpoint_every: usize) -> Result<Self, RilError> {
        std::fs::create_dir_all(path).map_err(RilError::io(path))?;
        Ok(Self { path: path.to_path_buf(), checkpoint_every: checkpoint_every.max(1) })
    }

    /// The folder, or a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    /// Runs a stage to its end, from its newest checkpoint if it has one; from the one before, with a note, if the
    /// newest is broken.
    ///
    /// # Errors
    /// The stage's own, and [`RilError::Io`] or [`RilError::Checkpoint`] for the files.
    pub fn run_stage(&self, name: &str, stage: &mut impl Stage, monitor: &mut Monitor) -> Result<Outcome, RilError> {
        let folder = self.path.join("checkpoints").join(name);
        restore(stage, &folder, monitor)?;
        let first = stage.next_step();
        self.forget_after(name, first)?;
        let mut metrics = self.append(METRICS_FILE)?;
        let mut timings = self.append(TIMINGS_FILE)?;
        monitor.start(name, stage.total_steps(), first);
        while stage.next_step() < stage.total_steps() {
            let step = stage.next_step();
            let started = Instant::now();
            let numbers = stage.step()?;
            write_line(&mut metrics, &self.file(METRICS_FILE), &line(name, step, &numbers))?;
            let seconds = json!({"stage": name, "step": step, "seconds": started.elapsed().as_secs_f64()});
            write_line(&mut timings, &self.file(TIMINGS_FILE), &seconds)?;
            monitor.step(step + 1, numbers.as_slice());
            let is_last = step + 1 == stage.total_steps();
            let stop = monitor.should_stop();
            // The last step is saved too: whoever needs the result may be killed before it is stored elsewhere.
            if stop || is_last || (step + 1).is_multiple_of(self.checkpoint_every) {
                save(stage, &folder)?;
            }
            if stop {
                monitor.finish();
                return Ok(Outcome::Interrupted);
            }
        }
        monitor.finish();
        Ok(Outcome::Finished)
    }

    /// Drops a stage's checkpoints once its result is stored elsewhere.
    ///
    /// # Errors
    /// [`RilError::Io`].
    pub fn forget_checkpoints(&self, name: &str) -> Result<(), RilError> {
        remove(&self.path.join("checkpoints").join(name))
    }

    /// All steps logged for a stage, in order.
    ///
    /// # Errors
    /// [`RilError::Io`], [`RilError::Line`].
    pub fn metrics(&self, stage: &str) -> Result<Vec<Map<String, Value>>, RilError> {
        let path = self.file(METRICS_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let lines = crate::data::read_lines::<Map<String, Value>>(&path)?;
        Ok(lines.into_iter().map(|(_, l)| l).filter(|l| l.get("stage") == Some(&Value::from(stage))).collect())
    }

    /// Removes the lines of steps that will be run again, and a last line that a kill cut short.
    fn forget_after(&self, stage: &str, first: usize) -> Result<(), RilError> {
        for name in [METRICS_FILE, TIMINGS_FILE] {
            let path = self.file(name);
            if !path.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(RilError::io(&path))?;
            let is_kept = |line: &&str| {
                let Ok(value) = serde_json::from_str::<Value>(line) else { return false };
                value["stage"] != stage || value["step"].as_u64().is_some_and(|s| (s as usize) < first)
            };
            let kept: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
            if kept != text {
                write_atomic(&path, kept.as_bytes())?;
            }
        }
        Ok(())
    }

    fn append(&self, name: &str) -> Result<File, RilError> {
        let path = self.file(name);
        OpenOptions::new().create(true).append(true).open(&path).map_err(RilError::io(&path))
    }
}

fn line(stage: &str, step: usize, numbers: &StageMetrics) -> Value {
    let mut line = Map::new();
    line.insert("stage".into(), stage.into());
    line.insert("step".into(), step.into());
    for (name, value) in numbers.as_slice() {
        line.insert(name.clone(), json!(value));
    }
    Value::Object(line)
}

fn write_line(file: &mut File, path: &Path, value: &Value) -> Result<(), RilError> {
    file.write_all(format!("{value}\n").as_bytes()).map_err(RilError::io(path))
}

/// Goes on from the newest checkpoint that can be read; an error when there are some and none can.
fn restore(stage: &mut impl Stage, folder: &Path, monitor: &mut Monitor) -> Result<(), RilError> {
    let mut newest_failure = None;
    for step in steps(folder)? {
        match stage.restore(&folder.join(format!("step-{step}")), step) {
            Ok(()) => return Ok(()),
            Err(error) => {
                monitor.note(&format!("checkpoint of step {step} cannot be used: {}", explain(&error)));
                newest_failure.get_or_insert(error);
            }
        }
    }
    newest_failure.map_or(Ok(()), Err)
}

/// Steps of the complete checkpoints, newest first.
fn steps(folder: &Path) -> Result<Vec<usize>, RilError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(RilError::io(folder))?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut steps: Vec<usize> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

/// Saves under a temporary name, renames once all is on the disk, then drops all but the newest two.
fn save(stage: &impl Stage, folder: &Path) -> Result<(), RilError> {
    let step = stage.next_step();
    let temporary = folder.join("partial");
    remove(&temporary)?;
    std::fs::create_dir_all(&temporary).map_err(RilError::io(&temporary))?;
    stage.save(&temporary)?;
    sync_folder(&temporary)?;
    let complete = folder.join(format!("step-{step}"));
    // One that could not be restored may stand there.
    remove(&complete)?;
    rename_synced(&temporary, &complete).map_err(RilError::io(&complete))?;
    for old in steps(folder)?.iter().skip(2) {
        remove(&folder.join(format!("step-{old}")))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), RilError> {
    if folder.exists() { std::fs::remove_dir_all(folder).map_err(RilError::io(folder)) } else { Ok(()) }
}

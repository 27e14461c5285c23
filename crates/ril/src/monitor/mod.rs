//! What a run shows while it goes: burn-train's terminal UI on a terminal, a line now and then elsewhere.
//!
//! [`Monitor`] drives burn-train's own renderer types from our loop, so plots, key bindings and the [`Interrupter`] are
//! burn-train's. A run is a sequence of phases (SFT, discriminator, arms, evaluations); each one gets a fresh screen,
//! because burn-train's progress bar and plots know one training only, and leaves one summary line behind.
//!
//! * In the terminal UI, `q` then `s` asks the loop to stop ([`Monitor::should_stop`], for all later phases too); `q`
//!   then `k` panics out of the next [`Monitor::step`]. Ctrl-C is a plain key there.
//! * In plain mode Ctrl-C ends the process as usual, and the run resumes from its last checkpoint.
//! * The terminal is restored when a phase finishes and when the monitor is dropped, so on an early return too; on a
//!   panic by burn-train's hook (a last frame may stay on the screen); not by `std::process::exit`.
//! * While a phase runs, print through [`Monitor::note`]: other output would tear the screen.

mod plain;
mod timer;

use std::{
    collections::VecDeque,
    io::{IsTerminal, Write},
    ops::ControlFlow,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use burn_train::{
    Interrupter,
    metric::{MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry},
    renderer::{EvaluationName, MetricState, MetricsRenderer, tui::TuiMetricsRendererWrapper},
};
use plain::{Lines, PlainRenderer};
use timer::{StepTimer, duration_text};

/// Time between two lines in plain mode.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Metrics that a line has room for: the first ones. The terminal UI shows all.
pub(crate) const LINE_METRICS: usize = 8;

/// Steps behind the mean that stands beside a metric's last value.
const MEAN_STEPS: usize = 20;

/// How a run shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MonitorMode {
    /// [`Tui`](Self::Tui) when input and output are a terminal that can do it, else [`Plain`](Self::Plain).
    #[default]
    Auto,
    /// burn-train's terminal UI; plain lines when standard output is no terminal.
    Tui,
    /// A line on standard error every ten seconds.
    Plain,
    /// Nothing.
    Silent,
}

/// A monitor mode that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("monitor: expected auto, tui, plain or silent, got {0:?}")]
pub struct UnknownMode(String);

impl FromStr for MonitorMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "auto" => Ok(Self::Auto),
            "tui" => Ok(Self::Tui),
            "plain" => Ok(Self::Plain),
            "silent" => Ok(Self::Silent),
            other => Err(UnknownMode(other.to_string())),
        }
    }
}

impl std::fmt::Display for MonitorMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tui => "tui",
            Self::Plain => "plain",
            Self::Silent => "silent",
        })
    }
}

impl MonitorMode {
    /// The mode that this process can show: never [`Auto`](Self::Auto).
    fn resolve(self) -> Self {
        let output = std::io::stdout().is_terminal();
        let capable = std::env::var_os("TERM").is_some_and(|term| term != "dumb") && std::io::stdin().is_terminal();
        match self {
            Self::Auto if output && capable => Self::Tui,
            Self::Tui if output => Self::Tui,
            Self::Auto | Self::Tui => Self::Plain,
            other => other,
        }
    }
}

/// What a phase does: burn-train's screen names it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    Training,
    Evaluation,
}

/// A metric of the phase: registered at burn-train, with its last values.
struct Metric {
    name: String,
    id: MetricId,
    recent: VecDeque<f64>,
}

/// A running phase.
struct Phase {
    label: String,
    activity: Activity,
    timer: StepTimer,
    renderer: Option<Box<dyn MetricsRenderer>>,
    metrics: Vec<Metric>,
    notes: Vec<String>,
}

/// Progress, metrics and time left of a run.
pub struct Monitor {
    mode: MonitorMode,
    lines: Lines,
    interrupter: Interrupter,
    phase: Option<Phase>,
}

impl Monitor {
    /// A monitor on this process' terminal.
    pub fn new(mode: MonitorMode) -> Self {
        Self::build(mode.resolve(), Box::new(std::io::stderr()))
    }

    /// A plain monitor that writes its lines to `writer`.
    pub fn to_writer(writer: Box<dyn Write + Send>) -> Self {
        Self::build(MonitorMode::Plain, writer)
    }

    fn build(mode: MonitorMode, writer: Box<dyn Write + Send>) -> Self {
        Self { mode, lines: Lines::new(writer), interrupter: Interrupter::new(), phase: None }
    }

    /// Starts a training phase of `total_steps`, of which `first_step` were done before (0, or where a resumed run goes
    /// on); finishes the phase before it.
    pub fn start(&mut self, label: &str, total_steps: usize, first_step: usize) {
        self.open(label, Activity::Training, StepTimer::new(total_steps, first_step, Instant::now()));
    }

    /// Starts an evaluation of `total_questions`; finishes the phase before it.
    pub fn start_evaluation(&mut self, label: &str, total_questions: usize) {
        self.resume_evaluation(label, total_questions, 0);
    }

    /// As [`start_evaluation`](Self::start_evaluation), with `answered` questions done before: they do not count in the
    /// estimate of the time left.
    pub fn resume_evaluation(&mut self, label: &str, total_questions: usize, answered: usize) {
        self.open(label, Activity::Evaluation, StepTimer::new(total_questions, answered, Instant::now()));
    }

    /// `step` steps (or questions) are done, those before a resume included; `metrics` are those of the last one.
    ///
    /// A metric is registered on first sight. A value that is not finite leaves a gap in the plot. In training lines and
    /// summaries show recent means; in an evaluation the last value, so give running values there.
    pub fn step<N: AsRef<str>>(&mut self, step: usize, metrics: &[(N, f64)]) {
        let mode = self.mode;
        let Some(phase) = &mut self.phase else { return };
        phase.timer.record(step, Instant::now());
        let shown = if mode == MonitorMode::Tui { metrics.len() } else { LINE_METRICS };
        for (name, value) in metrics.iter().take(shown) {
            phase.update(name.as_ref(), *value);
        }
        phase.show(mode);
    }

    /// [`step`](Self::step) without metrics, and whether to go on: what a loop that can stop anywhere asks.
    pub fn advance(&mut self, step: usize) -> ControlFlow<()> {
        self.step::<&str>(step, &[]);
        if self.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Prints a line; under the terminal UI it waits for the end of the phase.
    pub fn note(&mut self, text: &str) {
        match (&mut self.phase, self.mode) {
            (_, MonitorMode::Silent) => {}
            (Some(phase), MonitorMode::Tui) => phase.notes.push(text.to_string()),
            _ => self.lines.print(text),
        }
    }

    /// Ends the phase: restores the terminal, prints the summary line and the notes. Nothing without a phase.
    pub fn finish(&mut self) {
        let Some(mut phase) = self.phase.take() else { return };
        // Dropping burn-train's renderer joins its thread, which leaves the alternate screen.
        drop(phase.renderer.take());
        if self.mode != MonitorMode::Silent {
            phase.notes.iter().for_each(|note| self.lines.print(note));
            self.lines.print(&phase.summary());
        }
    }

    /// Whether the user, or an error given to the [`interrupter`](Self::interrupter), asks to stop. Stays true for the
    /// phases that follow.
    pub fn should_stop(&self) -> bool {
        self.interrupter.should_stop()
    }

    /// burn-train's interrupter of this run.
    pub fn interrupter(&self) -> &Interrupter {
        &self.interrupter
    }

    fn open(&mut self, label: &str, activity: Activity, timer: StepTimer) {
        self.finish();
        let mut renderer: Option<Box<dyn MetricsRenderer>> = match self.mode {
            MonitorMode::Tui => Some(Box::new(TuiMetricsRendererWrapper::new(self.interrupter.clone(), None))),
            MonitorMode::Silent => None,
            _ => Some(Box::new(PlainRenderer::new(self.lines.clone(), LINE_INTERVAL))),
        };
        if let Some(renderer) = &mut renderer {
            let steps = timer.steps_to_measure();
            // One "epoch" of the steps that this process does: burn-train's own estimate counts from 0, so it would
            // take steps from before a resume for measured ones. The label has the true count.
            renderer.start(1, 1, Some(steps), Some(label));
            match activity {
                Activity::Training => renderer.start_split("train", steps),
                Activity::Evaluation => {
                    renderer.start_global_progress(1);
                    renderer.start_test(label, steps);
                }
            }
        }
        let label = label.to_string();
        self.phase = Some(Phase { label, activity, timer, renderer, metrics: Vec::new(), notes: Vec::new() });
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Phase {
    fn update(&mut self, name: &str, value: f64) {
        let position = self.metrics.iter().position(|metric| metric.name == name);
        let position = position.unwrap_or_else(|| self.register(name));
        let metric = &mut self.metrics[position];
        if value.is_finite() {
            metric.recent.push_back(value);
            if metric.recent.len() > MEAN_STEPS {
                metric.recent.pop_front();
            }
        }
        let Some(renderer) = &mut self.renderer else { return };
        let text = match self.activity {
            Activity::Training => {
                format!("{} (mean of last {}: {})", number_text(value), metric.recent.len(), metric.mean_text())
            }
            Activity::Evaluation => number_text(value),
        };
        let entry = MetricEntry::new(metric.id.clone(), SerializedEntry::new(text, value.to_string()));
        let state = MetricState::Numeric(entry, value.is_finite().then_some(NumericEntry::Value(value)));
        match self.activity {
            Activity::Training => renderer.update_train(state),
            Activity::Evaluation => renderer.update_test(EvaluationName::new(&self.label), state),
        }
    }

    fn register(&mut self, name: &str) -> usize {
        let shared = Arc::new(name.to_string());
        let id = MetricId::new(shared.clone());
        let lower = name.to_lowercase();
        let higher_is_better = !["loss", "kl", "time", "seconds"].iter().any(|word| lower.contains(word));
        if let Some(renderer) = &mut self.renderer {
            renderer.register_metric(MetricDefinition {
                metric_id: id.clone(),
                name: shared,
                description: None,
                attributes: NumericAttributes { unit: None, higher_is_better }.into(),
            });
        }
        self.metrics.push(Metric { name: name.to_string(), id, recent: VecDeque::new() });
        self.metrics.len() - 1
    }

    /// Sends count and time left to the screen.
    fn show(&mut self, mode: MonitorMode) {
        let (count, steps) = (self.count(), self.timer.steps_to_measure());
        let left = self.timer.time_left().map_or_else(|| "?".to_string(), duration_text);
        // The status box of the terminal UI is narrow: what stands nowhere else comes first.
        let label = match mode {
            MonitorMode::Tui => format!("{left} left, {count}"),
            _ => format!("{count}  {} elapsed, {left} left", duration_text(self.timer.elapsed(Instant::now()))),
        };
        let Some(renderer) = self.renderer.as_mut().filter(|_| steps > 0) else { return };
        // burn-train changes a label through `start` alone; it resets the count, which is set right after.
        renderer.start(1, 1, Some(steps), Some(&label));
        let done = self.timer.measured_steps().min(steps);
        match self.activity {
            Activity::Training => renderer.update_split(done),
            Activity::Evaluation => renderer.update_test_progress(done),
        }
    }

    fn count(&self) -> String {
        format!("{} {}/{}", self.label, self.timer.step(), self.timer.total_steps())
    }

    fn summary(&self) -> String {
        let elapsed = self.timer.elapsed(Instant::now());
        let mut line = format!("{} in {}", self.count(), duration_text(elapsed));
        if self.timer.measured_steps() > 0 {
            let per_step = elapsed.as_secs_f64() / self.timer.measured_steps() as f64;
            line += &format!(" ({} s each)", number_text(per_step));
        }
        for metric in self.metrics.iter().filter(|metric| !metric.recent.is_empty()).take(LINE_METRICS) {
            let value = match self.activity {
                Activity::Training => metric.mean_text(),
                Activity::Evaluation => number_text(metric.recent.back().copied().unwrap_or(f64::NAN)),
            };
            line += &format!("  {} {value}", metric.name);
        }
        line
    }
}

impl Metric {
    fn mean_text(&self) -> String {
        number_text(self.recent.iter().sum::<f64>() / self.recent.len() as f64)
    }
}

/// Four significant digits, with an exponent outside `[1e-3, 1e5)`.
fn number_text(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 5) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests;

//! Lines of text in place of the terminal UI, for a log file or a pipe.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use burn_train::{
    logger::{EvaluationProgressLogger, TrainingProgressLogger},
    metric::{MetricDefinition, MetricId, MetricName},
    renderer::{EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining},
};

/// Where lines go: standard error, or a file of the caller.
#[derive(Clone)]
pub(super) struct Lines(Arc<Mutex<Box<dyn Write + Send>>>);

impl Lines {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// Prints a line. A closed pipe must not stop a training run, so errors are dropped.
    pub(super) fn print(&self, line: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(writer, "{line}").and_then(|()| writer.flush());
    }
}

/// One metric since the last line; of an evaluation, its last value.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

/// A burn-train renderer that prints the status label and the mean of every metric since the last line: the first step
/// at once, then at most one line per `interval`.
pub(super) struct PlainRenderer {
    lines: Lines,
    interval: Duration,
    last_line: Option<Instant>,
    label: String,
    names: HashMap<MetricId, MetricName>,
    /// In the order of arrival.
    means: Vec<(MetricId, Mean)>,
}

impl PlainRenderer {
    pub(super) fn new(lines: Lines, interval: Duration) -> Self {
        Self { lines, interval, last_line: None, label: String::new(), names: HashMap::new(), means: Vec::new() }
    }

    /// The mean that `state` belongs to, and its value.
    fn find(&mut self, state: MetricState) -> Option<(&mut Mean, f64)> {
        let MetricState::Numeric(entry, Some(value)) = state else { return None };
        let position = self.means.iter().position(|(id, _)| *id == entry.metric_id).unwrap_or_else(|| {
            self.means.push((entry.metric_id, Mean::default()));
            self.means.len() - 1
        });
        Some((&mut self.means[position].1, value.current()))
    }

    fn add(&mut self, state: MetricState) {
        if let Some((mean, value)) = self.find(state) {
            mean.sum += value;
            mean.count += 1;
        }
    }

    fn step(&mut self) {
        if self.last_line.is_some_and(|last| last.elapsed() < self.interval) {
            return;
        }
        self.last_line = Some(Instant::now());
        let metrics = self.means.iter_mut().filter(|(_, mean)| mean.count > 0).map(|(id, mean)| {
            let Mean { sum, count } = std::mem::take(mean);
            let name = self.names.get(id).map_or("?", |name| name.as_str());
            format!("  {name} {}", super::number_text(sum / count as f64))
        });
        let line = format!("{}{}", self.label, metrics.collect::<String>());
        self.lines.print(&line);
    }
}

impl MetricsRenderer for PlainRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}

impl MetricsRendererTraining for PlainRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.add(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.add(state);
    }
}

impl MetricsRendererEvaluation for PlainRenderer {
    fn update_test(&mut self, _name: EvaluationName, state: MetricState) {
        if let Some((mean, value)) = self.find(state) {
            *mean = Mean { sum: value, count: 1 };
        }
    }
}

impl TrainingProgressLogger for PlainRenderer {
    fn start(&mut self, _epochs: usize, _starting_epoch: usize, _items: Option<usize>, label: Option<&str>) {
        self.label = label.unwrap_or_default().to_string();
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, _split: &str, _total_items: usize) {}

    fn update_split(&mut self, _items_processed: usize) {
        self.step();
    }

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, event: String) {
        self.lines.print(&event);
    }
}

impl EvaluationProgressLogger for PlainRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {
        self.step();
    }

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, event: String) {
        self.lines.print(&event);
    }
}

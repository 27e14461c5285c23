//! The plain mode, end to end; the terminal UI is tried by hand (it needs a terminal).

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(String::from).collect()
    }
}

#[test]
fn first_step_and_summary_are_printed_and_the_rest_is_throttled() {
    let sink = Sink::default();
    let mut monitor = Monitor::to_writer(Box::new(sink.clone()));
    monitor.start("SFT", 100, 40);
    for step in 41..=100 {
        monitor.step(step, &[("loss", 1.0 / step as f64), ("KL", f64::NAN)]);
    }
    monitor.note("checkpoint saved");
    monitor.finish();
    let lines = sink.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("SFT 41/100  0s elapsed, 0s left") && lines[0].ends_with("loss 0.02439"), "{lines:?}");
    assert_eq!(lines[1], "checkpoint saved");
    assert!(lines[2].starts_with("SFT 100/100 in 0s") && lines[2].contains("loss 0.01109"), "{lines:?}");
    assert!(!lines[2].contains("NaN"), "{lines:?}");
}

#[test]
fn a_line_shows_the_first_metrics() {
    let sink = Sink::default();
    let mut monitor = Monitor::to_writer(Box::new(sink.clone()));
    monitor.start("RIL", 2, 0);
    let metrics: Vec<(String, f64)> = (0..30).map(|i| (format!("m{i}"), 1.0)).collect();
    monitor.step(1, &metrics);
    monitor.step(2, &metrics);
    monitor.finish();
    assert!(sink.lines().iter().all(|line| line.ends_with("m7 1.000")), "{:?}", sink.lines());
}

#[test]
fn a_new_phase_and_a_drop_finish_the_one_before() {
    let sink = Sink::default();
    let mut monitor = Monitor::to_writer(Box::new(sink.clone()));
    monitor.start("D", 2, 0);
    monitor.step(1, &[("accuracy", 0.75)]);
    monitor.start_evaluation("held out", 10);
    monitor.step(9, &[("accuracy", 0.5)]);
    monitor.step(10, &[("accuracy", 0.25)]);
    drop(monitor);
    let starts: Vec<_> = sink.lines().iter().map(|line| line.chars().take(6).collect::<String>()).collect();
    assert_eq!(starts, ["D 1/2 ", "D 1/2 ", "held o", "held o"]);
    assert!(sink.lines()[3].ends_with("accuracy 0.2500"), "a running value, not a mean of running values");
}

#[test]
fn a_stop_outlives_its_phase() {
    let mut monitor = Monitor::new(MonitorMode::Silent);
    monitor.start("SFT", 10, 0);
    monitor.step(1, &[("loss", 2.0)]);
    assert!(!monitor.should_stop());
    monitor.interrupter().stop(Some("test"));
    monitor.start("RIL", 10, 0);
    assert!(monitor.should_stop());
}

#[test]
fn steps_without_a_phase_and_empty_phases_are_harmless() {
    let sink = Sink::default();
    let mut monitor = Monitor::to_writer(Box::new(sink.clone()));
    monitor.step(1, &[("loss", 1.0)]);
    monitor.finish();
    monitor.start("done before", 5, 5);
    monitor.step(5, &[("loss", 1.0)]);
    monitor.finish();
    assert_eq!(sink.lines(), ["done before 5/5 in 0s  loss 1.000"]);
}

#[test]
fn modes_parse() {
    assert_eq!("plain".parse(), Ok(MonitorMode::Plain));
    assert!("fancy".parse::<MonitorMode>().is_err());
    assert_eq!(MonitorMode::Silent.resolve(), MonitorMode::Silent);
    assert_ne!(MonitorMode::Auto.resolve(), MonitorMode::Auto);
}

#[test]
fn numbers_have_four_digits() {
    let texts = [0.0, 0.5, 12.3456, 1e-5, -250.26, 123_456.0].map(number_text);
    assert_eq!(texts, ["0", "0.5000", "12.35", "1.00e-5", "-250.3", "1.23e5"]);
}

//! Time left, from the steps that this process has measured.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Steps behind an estimate: enough to smooth, few enough to follow completions that grow longer.
const WINDOW_STEPS: usize = 50;

/// Steps of one phase and when they ended.
#[derive(Debug)]
pub(super) struct StepTimer {
    started: Instant,
    first_step: usize,
    total_steps: usize,
    /// `(steps done, when)`, oldest first; begins with the start of the phase, so a resumed phase never counts the
    /// steps of the process before it.
    ends: VecDeque<(usize, Instant)>,
}

impl StepTimer {
    /// A phase of `total_steps` of which `first_step` were done before `now`.
    pub(super) fn new(total_steps: usize, first_step: usize, now: Instant) -> Self {
        Self { started: now, first_step, total_steps, ends: VecDeque::from([(first_step, now)]) }
    }

    /// `step` steps are done at `now`.
    pub(super) fn record(&mut self, step: usize, now: Instant) {
        self.ends.push_back((step, now));
        if self.ends.len() > WINDOW_STEPS + 1 {
            self.ends.pop_front();
        }
    }

    /// Steps done, those before a resume included.
    pub(super) fn step(&self) -> usize {
        self.ends.back().map_or(self.first_step, |end| end.0)
    }

    /// Steps done by this process.
    pub(super) fn measured_steps(&self) -> usize {
        self.step().saturating_sub(self.first_step)
    }

    /// Steps that this process has to do in all.
    pub(super) fn steps_to_measure(&self) -> usize {
        self.total_steps.saturating_sub(self.first_step)
    }

    /// Steps of the phase.
    pub(super) fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// Time since the phase started in this process.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Time left when the rest goes as the last steps did; `None` before the first step.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let (&(from, begin), &(to, end)) = (self.ends.front()?, self.ends.back()?);
        let measured = to.checked_sub(from).filter(|&steps| steps > 0)?;
        let per_step = end.saturating_duration_since(begin).as_secs_f64() / measured as f64;
        Duration::try_from_secs_f64(per_step * self.total_steps.saturating_sub(to) as f64).ok()
    }
}

/// "8s", "4m 10s", "2h 05m", "3d 04h".
pub(super) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumed_steps_are_not_counted() {
        let start = Instant::now();
        let mut timer = StepTimer::new(1000, 900, start);
        assert_eq!(timer.time_left(), None);
        timer.record(910, start + Duration::from_secs(20));
        assert_eq!(timer.time_left(), Some(Duration::from_secs(180)));
        assert_eq!((timer.measured_steps(), timer.steps_to_measure(), timer.step()), (10, 100, 910));
    }

    #[test]
    fn estimate_follows_a_change_of_pace() {
        let start = Instant::now();
        let mut timer = StepTimer::new(1000, 0, start);
        let mut now = start;
        for step in 1..=200 {
            now += Duration::from_secs(if step <= 100 { 10 } else { 1 });
            timer.record(step, now);
        }
        assert_eq!(timer.time_left(), Some(Duration::from_secs(800)));
        assert_eq!(timer.elapsed(now), Duration::from_secs(1100));
    }

    #[test]
    fn past_the_end_nothing_is_left() {
        let start = Instant::now();
        let mut timer = StepTimer::new(3, 0, start);
        timer.record(5, start + Duration::from_secs(5));
        assert_eq!(timer.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn durations_read_well() {
        let texts = [8, 250, 7500, 273_600].map(|seconds| duration_text(Duration::from_secs(seconds)));
        assert_eq!(texts, ["8s", "4m 10s", "2h 05m", "3d 04h"]);
        assert_eq!(duration_text(Duration::from_millis(59_800)), "1m 00s");
    }
}

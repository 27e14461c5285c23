//! When a request may start: places, rate, and the wish to stop.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::ClientError;

/// How often a wait looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A wish to stop: of its own, or of the ones that it was made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    own: Arc<AtomicBool>,
    above: Vec<Arc<AtomicBool>>,
}

impl Stop {
    /// Stops when this one stops, and by itself.
    pub fn child(&self) -> Self {
        let above = self.above.iter().chain([&self.own]).cloned().collect();
        Self { own: Arc::default(), above }
    }

    pub fn stop(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.above.iter().chain([&self.own]).any(|flag| flag.load(Ordering::Relaxed))
    }

    pub fn check(&self) -> Result<(), ClientError> {
        if self.is_stopped() { Err(ClientError::Stopped) } else { Ok(()) }
    }

    /// Sleeps, but not past a wish to stop.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// At most so many requests at once, and so many a second.
pub(crate) struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
    limiter: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl Gate {
    pub fn new(max_in_flight: usize, requests_per_second: Option<f64>) -> Self {
        // Evenly spaced: one request a period, no burst.
        let quota = |rate: f64| {
            let period = Duration::from_secs_f64(1.0 / rate);
            Quota::with_period(period).expect("a rate up to 1e6 has a period above 0").allow_burst(NonZeroU32::MIN)
        };
        let limiter = requests_per_second.map(|rate| RateLimiter::direct(quota(rate)));
        Self { free: Mutex::new(max_in_flight), freed: Condvar::new(), limiter, clock: DefaultClock::default() }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place, which is held until the pass is dropped.
    pub fn enter(&self, stop: &Stop) -> Result<Pass<'_>, ClientError> {
        let mut free = self.free();
        while *free == 0 {
            stop.check()?;
            free = self.freed.wait_timeout(free, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Pass(self))
    }

    /// Waits until the rate allows another attempt.
    pub fn pace(&self, stop: &Stop) -> Result<(), ClientError> {
        let Some(limiter) = &self.limiter else { return stop.check() };
        loop {
            stop.check()?;
            match limiter.check() {
                Ok(()) => return Ok(()),
                Err(early) => stop.sleep(early.wait_time_from(self.clock.now())),
            }
        }
    }
}

/// A place.
pub(crate) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = Stop::default();
        let (one, two) = (parent.child(), parent.child().child());
        one.stop();
        assert!(one.is_stopped() && !parent.is_stopped() && !two.is_stopped());
        parent.stop();
        assert!(two.is_stopped());
    }

    #[test]
    fn a_wish_to_stop_ends_every_wait() {
        let (gate, stop) = (Gate::new(1, Some(0.001)), Stop::default());
        let _pass = gate.enter(&stop).unwrap();
        gate.pace(&stop).unwrap();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let place = scope.spawn(|| gate.enter(&stop).map(|_| ()));
            let rate = scope.spawn(|| gate.pace(&stop));
            let sleep = scope.spawn(|| stop.sleep(Duration::from_secs(600)));
            std::thread::sleep(Duration::from_millis(20));
            stop.stop();
            assert!(matches!(place.join().unwrap(), Err(ClientError::Stopped)));
            assert!(matches!(rate.join().unwrap(), Err(ClientError::Stopped)));
            sleep.join().unwrap();
        });
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn requests_are_spaced_by_the_rate() {
        let (gate, stop) = (Gate::new(8, Some(100.0)), Stop::default());
        let started = Instant::now();
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| (0..5).for_each(|_| gate.pace(&stop).unwrap()))));
        });
        // The first of 20 starts at once, the others 10 ms apart.
        assert!(started.elapsed() >= Duration::from_millis(189), "{:?}", started.elapsed());
    }
}

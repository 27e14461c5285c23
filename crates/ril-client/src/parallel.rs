use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::ChatClient;

impl ChatClient {
    /// Jobs `0..count` on as many threads as requests may be under way; `done` is told each result as soon as it is there, in any
    /// order, on this thread.
    ///
    /// When `done` breaks, no further job begins and waits between attempts end; jobs under way are finished and `done` is
    /// told those too, so that nothing that was paid for is lost. Each job asks through the client that it is given.
    pub fn parallel<T: Send>(
        &self,
        count: usize,
        job: impl Fn(&ChatClient, usize) -> T + Sync,
        mut done: impl FnMut(usize, T) -> ControlFlow<()>,
    ) {
        let scoped = self.scoped();
        let next = AtomicUsize::new(0);
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..self.config().max_in_flight.min(count) {
                let (sender, job, next, scoped) = (sender.clone(), &job, &next, &scoped);
                scope.spawn(move || {
                    while !scoped.stop.is_stopped() {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count || sender.send((index, job(scoped, index))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (index, value) in receiver {
                if done(index, value).is_break() {
                    scoped.stop();
                }
            }
        });
    }
}

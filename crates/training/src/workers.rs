//! Independent jobs on several threads, with results in the order of the jobs.
//!
//! The CPU backends run most operations on one thread, so whole micro-batches are distributed over
//! the cores. Each worker runs its jobs in a pool of one thread, so that an operation that a
//! backend parallelises is never split: results do not depend on the number of workers or cores.

use std::{collections::BTreeMap, sync::Mutex};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use thiserror::Error;

/// A fixed number of worker threads, or the calling thread alone.
#[derive(Debug)]
pub struct Workers {
    pools: Vec<ThreadPool>,
    stop: fn() -> bool,
}

/// The work was stopped before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("stopped before the work was done")]
pub struct Stopped;

impl Workers {
    /// Creates `count` workers; use 0 or 1 for a backend that is parallel by itself.
    pub fn new(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let pools = (0..count.max(1)).map(|_| ThreadPoolBuilder::new().num_threads(1).build());
        Ok(Self { pools: pools.collect::<Result<_, _>>()?, stop: || false })
    }

    /// No threads: the calling thread does the work, for systems without threads such as
    /// WebAssembly. An operation that a backend parallelises is not held on one thread.
    pub fn on_the_calling_thread() -> Self {
        Self { pools: Vec::new(), stop: || false }
    }

    /// Stops starting items once `stop` returns true.
    #[must_use]
    pub fn stopping_when(self, stop: fn() -> bool) -> Self {
        Self { stop, ..self }
    }

    /// Whether the work is to stop.
    pub fn stopped(&self) -> bool {
        (self.stop)()
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Runs `job` for every item on the workers; the results are in the order of the items.
    ///
    /// # Errors
    /// If the work was stopped.
    pub fn map<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        job: impl Fn(T) -> R + Sync,
    ) -> Result<Vec<R>, Stopped> {
        let mut results = Vec::with_capacity(items.len());
        self.for_each(items, job, |result| results.push(result))?;
        Ok(results)
    }

    /// Runs `job` for every item on the workers; `take` gets the results one by one, in the order
    /// of the items.
    ///
    /// # Errors
    /// If the work was stopped; some results have been taken by then.
    pub fn for_each<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        job: impl Fn(T) -> R + Sync,
        take: impl FnMut(R) + Send,
    ) -> Result<(), Stopped> {
        let queue = Mutex::new(items.into_iter().enumerate());
        let sink = Mutex::new(InOrder { next: 0, waiting: BTreeMap::new(), take });
        let work = || {
            while !self.stopped() {
                let next = queue.lock().expect("no worker panics while it holds the queue").next();
                let Some((index, item)) = next else { break };
                let result = job(item);
                sink.lock()
                    .expect("no worker panics while it holds the results")
                    .add(index, result);
            }
        };
        match self.pools.split_first() {
            None => work(),
            Some((first, others)) => std::thread::scope(|scope| {
                for pool in others {
                    // If the system has no more threads, the workers that did start do the work.
                    let _ = std::thread::Builder::new().spawn_scoped(scope, || pool.install(work));
                }
                first.install(work);
            }),
        }
        let left = queue.into_inner().expect("no worker panics while it holds the queue").len();
        if left == 0 { Ok(()) } else { Err(Stopped) }
    }
}

/// Passes results on in the order of their indices.
struct InOrder<R, F> {
    next: usize,
    waiting: BTreeMap<usize, R>,
    take: F,
}

impl<R, F: FnMut(R)> InOrder<R, F> {
    fn add(&mut self, index: usize, result: R) {
        self.waiting.insert(index, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            (self.take)(result);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work() {
        let of_threads = [0, 1, 2, 5].map(|count| Workers::new(count).expect("threads"));
        for workers in of_threads.into_iter().chain([Workers::on_the_calling_thread()]) {
            let squares = workers.map((0..50_u64).collect(), |n| {
                std::thread::sleep(std::time::Duration::from_micros(50 - n));
                n * n
            });
            assert_eq!(squares, Ok((0..50).map(|n| n * n).collect()));
        }
    }

    #[test]
    fn work_that_is_stopped_begins_no_further_item() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let workers =
            Workers::new(2).expect("threads").stopping_when(|| STOP.load(Ordering::SeqCst));
        let done = AtomicUsize::new(0);
        let stopped = workers.map((0..50_usize).collect(), |n| {
            if n == 10 {
                STOP.store(true, Ordering::SeqCst);
            }
            done.fetch_add(1, Ordering::SeqCst)
        });
        assert_eq!(stopped, Err(Stopped));
        assert!(
            (11..=12).contains(&done.into_inner()),
            "the item that the other worker had in hand, and no other"
        );
    }
}

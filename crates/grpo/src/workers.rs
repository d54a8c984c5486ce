//! Independent work on several threads, results in the order of the work.
//!
//! The CPU backends run most operations on one thread, so whole micro-batches are what is spread over the cores. Each worker
//! has a pool of one thread for what a backend would parallelise inside an operation: no operation is split differently on
//! another machine, so results do not depend on the number of workers.

use std::{collections::BTreeMap, sync::Mutex};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A fixed number of threads.
#[derive(Debug)]
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// `count` workers; 0 or 1 for a backend that is parallel by itself.
    pub fn new(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let pools = (0..count.max(1)).map(|_| ThreadPoolBuilder::new().num_threads(1).build());
        Ok(Self { pools: pools.collect::<Result<_, _>>()? })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pools.len()
    }

    /// `job` for every item, spread over the workers; the results are in the order of the items.
    pub fn map<T: Send, R: Send>(&self, items: Vec<T>, job: impl Fn(T) -> R + Sync) -> Vec<R> {
        let mut results = Vec::with_capacity(items.len());
        self.for_each(items, job, |result| results.push(result));
        results
    }

    /// `job` for every item, spread over the workers; `take` gets the results one by one, in the order of the items.
    pub fn for_each<T: Send, R: Send>(&self, items: Vec<T>, job: impl Fn(T) -> R + Sync, take: impl FnMut(R) + Send) {
        let queue = Mutex::new(items.into_iter().enumerate());
        let sink = Mutex::new(InOrder { next: 0, waiting: BTreeMap::new(), take });
        let work = || {
            loop {
                let next = queue.lock().expect("no worker panics while it holds the queue").next();
                let Some((index, item)) = next else { break };
                let result = job(item);
                sink.lock().expect("no worker panics while it holds the results").add(index, result);
            }
        };
        std::thread::scope(|scope| {
            for pool in &self.pools[1..] {
                scope.spawn(|| pool.install(work));
            }
            self.pools[0].install(work);
        });
    }
}

/// Hands results on in the order of their indices.
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
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work() {
        for count in [0, 1, 2, 5] {
            let workers = Workers::new(count).expect("threads");
            let squares = workers.map((0..50_u64).collect(), |n| {
                std::thread::sleep(std::time::Duration::from_micros(50 - n));
                n * n
            });
            assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<_>>());
        }
    }
}

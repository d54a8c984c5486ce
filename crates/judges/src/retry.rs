//! Waits between attempts: exponential, with jitter, and the same for the same seed.

use std::time::Duration;

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// The longest wait of our own.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_mins(2);

/// The waits between attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// The first wait, before jitter.
    pub first: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Backoff {
    /// The wait after attempt `attempt` (from 0) of batch `batch`.
    ///
    /// ```text
    /// wait = u · min(first · 2^attempt, 30 s),   u uniform in [0.5, 1)
    /// ```
    ///
    /// A wait that the server asks for is kept, up to two minutes.
    pub fn wait(&self, batch: u64, attempt: u32, asked: Option<Duration>) -> Duration {
        if let Some(asked) = asked {
            return asked.min(LONGEST_ASKED);
        }
        let mut noise = ChaCha8Rng::seed_from_u64(self.seed);
        noise.set_stream(batch);
        // Two words of 32 bits make one number, so every attempt has numbers of its own.
        noise.set_word_pos(2 * u128::from(attempt));
        let doubled = 2_u32.checked_pow(attempt).and_then(|factor| self.first.checked_mul(factor));
        doubled.unwrap_or(LONGEST).min(LONGEST).mul_f64(noise.random_range(0.5..1.0))
    }
}

/// Reads the header `Retry-After`; only a number of seconds counts, not a date.
pub(crate) fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), seed: 7 };

    #[test]
    fn waits_double_within_their_jitter_and_end_at_the_longest() {
        for batch in 0..100 {
            for attempt in 0..40 {
                let whole = 2_f64.powi(attempt).min(30.0);
                let wait = BACKOFF.wait(batch, attempt as u32, None).as_secs_f64();
                assert!((0.5 * whole..whole).contains(&wait), "attempt {attempt}: {wait} s");
            }
        }
    }

    #[test]
    fn the_same_seed_waits_the_same_and_batches_wait_differently() {
        assert_eq!(BACKOFF.wait(3, 2, None), BACKOFF.wait(3, 2, None));
        assert_ne!(BACKOFF.wait(3, 2, None), BACKOFF.wait(4, 2, None));
        let other = Backoff { seed: 8, ..BACKOFF };
        assert_ne!(BACKOFF.wait(3, 2, None), other.wait(3, 2, None));
    }

    #[test]
    fn a_server_can_ask_for_a_wait_but_not_for_an_hour() {
        assert_eq!(BACKOFF.wait(0, 0, retry_after(" 9 ")), Duration::from_secs(9));
        assert_eq!(BACKOFF.wait(0, 0, retry_after("3600")), LONGEST_ASKED);
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(retry_after("-1"), None);
    }
}

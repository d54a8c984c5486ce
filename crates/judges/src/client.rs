//! A client of one judge: batches, concurrency and retries.

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Sample, SettingsError, Token,
    fault::{CheckError, Fault, JudgeError},
    flow_grpo::FlowGrpo,
    json::Json,
    openai::Openai,
    retry::Backoff,
    settings::{Protocol, Settings},
    transport::Transport,
    wire::{Scores, Wire},
};

/// A client of one judge. Blocking; many threads can share it.
///
/// # Retries
/// A request is repeated, at most `retries` times and with exponentially growing waits, if the
/// connection is refused or breaks, the time runs out, or the status is 429 or at least 500. All
/// else is an error at once: other statuses, malformed answers, a wrong number of scores, a score
/// that is not finite, and images that the judge says it cannot score.
pub struct Client {
    settings: Settings,
    transport: Transport,
    wire: Box<dyn Wire>,
    backoff: Backoff,
    counters: Counters,
}

/// How often things happened since a client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for scores, with their retries.
    pub requests: u64,
    /// Retries.
    pub retries: u64,
    /// Answers of a language model without a score, which got the score `unparsed`.
    pub unparsed: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    unparsed: AtomicU64,
}

/// What one batch needs: its samples, and the index of the first one.
struct Batch<'a> {
    samples: &'a [Sample<'a>],
    start: usize,
}

impl Client {
    /// Makes a client; sends nothing. The token is read from the environment here.
    ///
    /// # Errors
    /// If a setting is out of range, the token is not there, or https has no root certificates.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let token = settings.token_variable.as_deref().map(Token::from_variable).transpose()?;
        Self::with_token(settings, token)
    }

    /// Makes a client with a token from elsewhere than the environment.
    ///
    /// # Errors
    /// If a setting is out of range, or https has no root certificates.
    pub fn with_token(settings: Settings, token: Option<Token>) -> Result<Self, SettingsError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(SettingsError::Values(problems));
        }
        let transport = Transport::new(&settings, token)?;
        let wire = settings.protocol.wire();
        let first = Duration::from_secs_f64(settings.first_wait_seconds);
        let backoff = Backoff { first, seed: settings.jitter_seed };
        Ok(Self { settings, transport, wire, backoff, counters: Counters::default() })
    }

    /// Asks once, before a run, whether the judge is there and has the reward or model.
    ///
    /// # Errors
    /// The reason why not, after one attempt.
    pub fn check(&self) -> Result<(), CheckError> {
        let answer = self.transport.get(self.wire.health_path());
        answer
            .and_then(|answer| self.wire.check(&answer))
            .map_err(|fault| CheckError { server: self.settings.url.clone(), fault })
    }

    /// Whether the protocol can carry a prompt with this metadata; asks nobody.
    ///
    /// # Errors
    /// The reason why not, for people.
    pub fn accepts(&self, metadata: &Value) -> Result<(), String> {
        self.wire.accepts(metadata)
    }

    /// How often things happened so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: read(&self.counters.requests),
            retries: read(&self.counters.retries),
            unparsed: read(&self.counters.unparsed),
        }
    }

    /// Scores samples; score `i` belongs to sample `i`, in whatever order the answers come.
    ///
    /// # Errors
    /// The first failure. After it no further requests are sent.
    pub fn score(&self, samples: &[Sample]) -> Result<Vec<f32>, JudgeError> {
        let size = self.settings.batch_size.min(self.wire.most_images());
        let batches: Vec<Batch> = samples
            .chunks(size)
            .enumerate()
            .map(|(index, samples)| Batch { samples, start: index * size })
            .collect();
        let scores: Vec<OnceLock<Vec<f32>>> = batches.iter().map(|_| OnceLock::new()).collect();
        let (next, failure) = (AtomicUsize::new(0), OnceLock::new());
        let work = || {
            while failure.get().is_none() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(batch) = batches.get(index) else { return };
                // Only the first failure counts: later ones may be retries given up because of it.
                match self.score_batch(batch, &failure) {
                    Ok(part) => drop(scores[index].set(part)),
                    Err(error) => drop(failure.set(error)),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.settings.concurrency.min(batches.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(scores.into_iter().filter_map(OnceLock::into_inner).flatten().collect()),
        }
    }

    /// Scores a batch, unless there is a failure elsewhere.
    fn score_batch(
        &self,
        batch: &Batch,
        elsewhere: &OnceLock<JudgeError>,
    ) -> Result<Vec<f32>, JudgeError> {
        let error = |images: Range<usize>, attempts, fault| JudgeError {
            server: self.settings.url.clone(),
            prompt: batch.samples[images.start - batch.start].prompt.to_owned(),
            images,
            attempts,
            fault: Box::new(fault),
        };
        let all = || batch.start..batch.start + batch.samples.len();
        let (scores, attempts) = self
            .ask(batch, elsewhere)
            .map_err(|(fault, attempts)| error(all(), attempts, fault))?;
        if scores.len() != batch.samples.len() {
            let fault = Fault::Count { scores: scores.len(), images: batch.samples.len() };
            return Err(error(all(), attempts, fault));
        }
        // A server that fails for one image may leave the others without score and reason.
        for (index, score) in (batch.start..).zip(&scores) {
            if let Err(fault @ Fault::Unjudged(_)) = score {
                return Err(error(index..index + 1, attempts, fault.clone()));
            }
        }
        let settle = |(index, score)| {
            self.settled(score).map_err(|fault| error(index..index + 1, attempts, fault))
        };
        (batch.start..).zip(scores).map(settle).collect()
    }

    /// Asks until there is an answer or no cure; gives the number of attempts along.
    fn ask(
        &self,
        batch: &Batch,
        elsewhere: &OnceLock<JudgeError>,
    ) -> Result<(Scores, u32), (Fault, u32)> {
        let post = self.wire.post(batch.samples).map_err(|fault| (fault, 0))?;
        let mut attempt = 0;
        loop {
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            let answer = self.transport.post(&post);
            let scores = answer.and_then(|answer| self.wire.scores(answer.success()?));
            let fault = match scores {
                Ok(scores) => return Ok((scores, attempt + 1)),
                Err(fault) => fault,
            };
            let last = attempt == self.settings.retries || elsewhere.get().is_some();
            if last || !fault.is_curable() {
                return Err((fault, attempt + 1));
            }
            let asked = if let Fault::Busy { wait, .. } = &fault { *wait } else { None };
            thread::sleep(self.backoff.wait(batch.start as u64, attempt, asked));
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    /// A finite score, or the score of an answer without one.
    fn settled(&self, score: Result<f32, Fault>) -> Result<f32, Fault> {
        match (score, &self.settings.protocol) {
            (Err(Fault::Unscored { .. }), Protocol::Openai { unparsed: Some(unparsed), .. }) => {
                self.counters.unparsed.fetch_add(1, Ordering::Relaxed);
                Ok(*unparsed)
            }
            (Ok(score), _) if !score.is_finite() => Err(Fault::NotFinite(score.to_string())),
            (score, _) => score,
        }
    }
}

impl Protocol {
    /// How this protocol writes requests and reads answers.
    fn wire(&self) -> Box<dyn Wire> {
        match self.clone() {
            Self::Json { reward, metric, image } => Box::new(Json { reward, metric, image }),
            Self::FlowGrpo { service } => Box::new(FlowGrpo { service }),
            Self::Openai { model, rubric, .. } => Box::new(Openai { model, rubric }),
        }
    }
}

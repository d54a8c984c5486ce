//! `scheduler/scheduler_config.json`: how a model's time grid is shifted.

use std::path::Path;

use serde::Deserialize;

use super::{ModelError, read_json};

/// How a model shifts its time grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shift {
    /// One shift for every size of image (SD3).
    Static(f64),
    /// The shift grows with the number of image tokens (FLUX.1).
    ByTokens(ShiftByTokens),
}

/// A shift `e^μ`, with μ linear in the number of image tokens.
///
/// Source: diffusers' `calculate_shift` of FLUX.1's pipeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftByTokens {
    /// A number of tokens and its μ; FLUX.1: 256 and 0.5.
    pub base: (f64, f64),
    /// A larger number of tokens and its μ; FLUX.1: 4096 and 1.15.
    pub max: (f64, f64),
}

impl ShiftByTokens {
    /// The settings of FLUX.1-dev.
    pub const FLUX1: Self = Self { base: (256.0, 0.5), max: (4096.0, 1.15) };

    /// The shift for an image of `tokens` tokens, which may lie beyond both ends.
    pub fn at(self, tokens: usize) -> f64 {
        let slope = (self.max.1 - self.base.1) / (self.max.0 - self.base.0);
        (self.base.1 + slope * (tokens as f64 - self.base.0)).exp()
    }
}

const SCHEDULER: &str = "FlowMatchEulerDiscreteScheduler";

/// `scheduler/scheduler_config.json`.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own layout")]
struct Scheduler {
    #[serde(rename = "_class_name")]
    class_name: String,
    shift: Option<f64>,
    num_train_timesteps: Option<f64>,
    shift_terminal: Option<f64>,
    #[serde(default)]
    use_dynamic_shifting: bool,
    base_shift: Option<f64>,
    max_shift: Option<f64>,
    base_image_seq_len: Option<f64>,
    max_image_seq_len: Option<f64>,
    time_shift_type: Option<String>,
    #[serde(default)]
    use_karras_sigmas: bool,
    #[serde(default)]
    use_exponential_sigmas: bool,
    #[serde(default)]
    use_beta_sigmas: bool,
    #[serde(default)]
    invert_sigmas: bool,
    #[serde(default)]
    stochastic_sampling: bool,
}

/// Reads how the scheduler of a model directory shifts the time grid; `default` if there is no
/// file, or it gives no shift.
///
/// # Errors
/// If the class or a setting of the scheduler is not supported.
pub(crate) fn read(model: &Path, default: Shift) -> Result<Shift, ModelError> {
    let path = model.join("scheduler").join("scheduler_config.json");
    if !path.exists() {
        return Ok(default);
    }
    let scheduler: Scheduler = read_json(&path)?;
    let dynamic = scheduler.use_dynamic_shifting;
    let (known, unknown) = match default {
        Shift::Static(_) => {
            let unknown = dynamic.then(|| "use_dynamic_shifting".to_owned());
            ("only a static shift is", scheduler.unknown().or(unknown))
        }
        Shift::ByTokens(_) => {
            ("only a shift that is static or grows with the image is", scheduler.unknown())
        }
    };
    match unknown {
        Some(unknown) => {
            Err(ModelError::unreadable(&path, format!("{unknown} is not known here; {known}")))
        }
        None if dynamic => Ok(Shift::ByTokens(scheduler.by_tokens())),
        None => Ok(scheduler.shift.map_or(default, Shift::Static)),
    }
}

impl Scheduler {
    fn by_tokens(&self) -> ShiftByTokens {
        let ShiftByTokens { base, max } = ShiftByTokens::FLUX1;
        ShiftByTokens {
            base: (self.base_image_seq_len.unwrap_or(base.0), self.base_shift.unwrap_or(base.1)),
            max: (self.max_image_seq_len.unwrap_or(max.0), self.max_shift.unwrap_or(max.1)),
        }
    }

    /// The first setting that this code does not support, if there is one.
    fn unknown(&self) -> Option<String> {
        if self.class_name != SCHEDULER {
            return Some(format!("the scheduler {}", self.class_name));
        }
        if let Some(shift) = self.shift.filter(|shift| !(*shift > 0.0 && shift.is_finite())) {
            return Some(format!("a shift of {shift}"));
        }
        let ShiftByTokens { base, max } = self.by_tokens();
        let ascend = base.0 < max.0 && [base.0, base.1, max.0, max.1].iter().all(|x| x.is_finite());
        let flags = [
            ("a base_image_seq_len that is not below max_image_seq_len", !ascend),
            (
                "another time_shift_type than exponential",
                self.time_shift_type.as_deref().is_some_and(|kind| kind != "exponential"),
            ),
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
            ("shift_terminal", self.shift_terminal.is_some()),
            (
                "another num_train_timesteps than 1000",
                self.num_train_timesteps.is_some_and(|steps| steps != 1000.0),
            ),
        ];
        flags.into_iter().find_map(|(name, set)| set.then(|| name.to_owned()))
    }
}

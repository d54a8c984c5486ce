//! The table of the exercises.

use crate::{Curve, Verdict, laws, solutions};

/// How much an exercise asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A formula of the chapter, in code.
    WarmUp = 1,
    /// A formula that you derive first.
    Derive = 2,
    /// A small piece of machinery.
    Build = 3,
    /// An experiment, or a bug that shows only in its curves.
    Investigate = 4,
}

/// A program that returns its curves.
pub type Program = fn() -> Vec<Curve>;

/// An exercise.
#[derive(Clone, Copy, Debug)]
pub struct Exercise {
    /// Its chapter and its place there, as in `3.2`.
    pub number: &'static str,
    /// How much it asks for.
    pub level: Level,
    /// What it is about.
    pub title: &'static str,
    /// The name of its function in the chapter's file, of its law and of its solution.
    pub name: &'static str,
    /// Where you write, from the root of the repository.
    pub file: &'static str,
    /// Its law on your answer.
    pub law: fn() -> Verdict,
    /// Its law on the solution.
    pub solution: fn() -> Verdict,
    /// The curves of your program and of the healthy one, if it is a debugging exercise.
    pub curves: Option<[Program; 2]>,
    /// The text of the file with its solution.
    solutions: &'static str,
}

impl Exercise {
    /// The solution, as it is written.
    pub fn solution_text(&self) -> &'static str {
        let (begin, end) =
            (format!("// ANCHOR: {}\n", self.name), format!("// ANCHOR_END: {}\n", self.name));
        let text = self.solutions.split_once(&begin).map_or("", |(_, text)| text);
        text.split_once(&end).map_or("", |(text, _)| text)
    }
}

/// All exercises, in the order of their numbers.
pub fn catalog() -> &'static [Exercise] {
    CATALOG
}

/// The exercise of a number.
pub fn find(number: &str) -> Option<&'static Exercise> {
    CATALOG.iter().find(|exercise| exercise.number == number)
}

macro_rules! exercises {
    (@curves $chapter:ident $name:ident) => { None };
    (@curves $chapter:ident $name:ident curves) => {
        Some([crate::$chapter::$name, solutions::$chapter::$name])
    };
    ($($chapter:ident: $($number:literal $level:ident $title:literal $name:ident $($curves:ident)?;)*)*) => {
        &[$($(
            Exercise {
                number: $number,
                level: Level::$level,
                title: $title,
                name: stringify!($name),
                file: concat!("exercises/src/", stringify!($chapter), ".rs"),
                law: || laws::$chapter::$name(crate::$chapter::$name),
                solution: || laws::$chapter::$name(solutions::$chapter::$name),
                curves: exercises!(@curves $chapter $name $($curves)?),
                solutions: include_str!(concat!("../solutions/", stringify!($chapter), ".rs")),
            },
        )*)*]
    };
}

const CATALOG: &[Exercise] = exercises! {
    ch01:
    "1.1" WarmUp "The velocity of a Gaussian" gaussian_velocity;
    "1.2" WarmUp "Both ends from the velocity" both_ends;
    "1.3" Derive "The velocity of a data set" velocity_of_images;
    "1.4" Derive "Learning the velocity by regression" fit_velocity;
    "1.5" Build "Heun's step, of order 2" heun_step;
    ch02:
    "2.1" WarmUp "A step with noise" euler_maruyama_step;
    "2.2" Derive "Where a spring comes to rest" resting_variance;
    "2.3" Derive "The score of a mixture" mixture_score;
    "2.4" Build "Sampling by the score alone" langevin;
    ch03:
    "3.1" WarmUp "The score from the velocity" score_from_velocity;
    "3.2" Build "A step of the SDE that keeps the marginals" flow_sde_step;
    "3.3" Investigate "Debugging: the sampler that spreads" spreading_sampler curves;
    "3.4" Build "How fast the SDE converges" spread_error;
    "3.5" Investigate "At √2 the SDE runs the noising backwards" covariance_in_time;
    ch04:
    "4.1" WarmUp "The gradient of an expectation" reinforce_gradient;
    "4.2" WarmUp "Leave one out" leave_one_out;
    "4.3" Derive "What leave-one-out costs" group_variances;
    "4.4" Derive "What dividing by the group's spread climbs" climbed_objective;
    "4.5" Build "The best baseline" best_baseline;
    "4.6" Investigate "Debugging: the groups that learn nothing" confused_groups curves;
    ch05:
    "5.1" WarmUp "The log-probability of a step" step_log_prob;
    "5.2" WarmUp "The ratio" ratio;
    "5.3" Derive "What a clip range means" at_the_clip;
    "5.4" Derive "The KL divergence of a step with any noise" step_kl;
    "5.5" Build "The share of the gradient that random steps see" seen_share;
    ch06:
    "6.1" WarmUp "The advantages of a group" group_advantages;
    "6.2" Derive "The clipped loss, with a cap" clipped_loss;
    "6.3" WarmUp "A mean of means" update_loss;
    "6.4" Investigate "Debugging: the run that overshoots" overshooting_run curves;
    ch07:
    "7.1" Derive "The gradient of a step, by hand" log_prob_gradient;
    "7.2" Build "An epoch" epoch;
    "7.3" Investigate "Debugging: the replay" replayed_run curves;
    ch08:
    "8.1" WarmUp "Guidance" guided_velocity;
    "8.2" Derive "Merging an adapter" merged;
    "8.3" Derive "The lag of an average" lag;
    ch09:
    "9.1" Build "A reward for a clean background" cleanliness;
    "9.2" Investigate "A picture that cheats" cheating_picture;
    ch10:
    "10.1" Investigate "What ails this run?" diagnose;
    ch11:
    "11.1" Derive "The best pressure" best_pressure;
    "11.2" Build "A controller that holds" next_weight;
    "11.3" WarmUp "A rule that stops in time" stops_at;
    ch12:
    "12.1" Derive "Tilting a density" tilted;
    "12.2" Build "How far ODE and SDE part" moved;
    ch13:
    "13.1" Build "Another transition: Flow-CPS" flow_cps_step;
    ch14:
    "14.1" WarmUp "From tokens back to a latent" latent_of_tokens;
    "14.2" Derive "The grid whose shift is applied twice" shifted_twice;
    "14.3" Build "Joint attention" joint_attention;
    "14.4" Derive "What guidance teaches each row" gradients_of_rows;
    "14.5" Derive "How many blocks to a segment?" best_segment;
};

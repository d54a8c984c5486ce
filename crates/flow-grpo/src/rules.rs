//! Rules: automatic actions of a run when a number of an evaluation goes wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use training::ranges;

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The watched number of an evaluation, named as in `best_by`.
    pub watch: String,
    /// The condition for the action.
    pub when: Condition,
    /// The action.
    pub action: Action,
}

/// The condition of a rule on its watched number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// The number is below a value.
    Below {
        /// The value.
        value: f64,
    },
    /// The number is above a value.
    Above {
        /// The value.
        value: f64,
    },
    /// The number is lower than its peak by more than a threshold.
    Fallen {
        /// The threshold.
        by: f64,
    },
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Ends the run.
    Stop {},
    /// Continues from the weights and optimiser state of the best evaluation, with new noise.
    RollBack {},
    /// Multiplies the weight `β` of the KL penalty.
    RaiseKl {
        /// The factor, above 1.
        factor: f64,
    },
}

impl Rule {
    /// Lists all values that are out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Action::RaiseKl { factor } = self.action
            && !(factor > 1.0 && factor.is_finite())
        {
            problems.push(format!("action.factor ({factor}) must be above 1"));
        }
        match self.when {
            Condition::Fallen { by } => problems.extend(ranges::positive("when.by", by)),
            Condition::Below { value } | Condition::Above { value } if !value.is_finite() => {
                problems.push(format!("when.value ({value}) must be a finite number"));
            }
            Condition::Below { .. } | Condition::Above { .. } => {}
        }
        problems
    }
}

/// The highest value so far of every watched number.
pub type Peaks = BTreeMap<String, f64>;

/// Updates `peaks` with the value of a rule's number; returns the reason if the rule applies.
pub fn reason(rule: &Rule, value: f64, peaks: &mut Peaks) -> Option<String> {
    let peak = peaks.entry(rule.watch.clone()).or_insert(value);
    *peak = peak.max(value);
    let watch = &rule.watch;
    match rule.when {
        Condition::Below { value: limit } if value < limit => {
            Some(format!("{watch} is {value:.4}, below {limit}"))
        }
        Condition::Above { value: limit } if value > limit => {
            Some(format!("{watch} is {value:.4}, above {limit}"))
        }
        Condition::Fallen { by } if value < *peak - by => {
            Some(format!("{watch} is {value:.4}, fallen from {peak:.4} by more than {by}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_when_its_condition_holds() {
        let rule = |when| Rule { watch: "gold.x".to_owned(), when, action: Action::Stop {} };
        let mut peaks = Peaks::new();
        let fallen = rule(Condition::Fallen { by: 0.1 });
        let applies: Vec<bool> = [0.5, 0.7, 0.65, 0.59]
            .iter()
            .map(|&value| reason(&fallen, value, &mut peaks).is_some())
            .collect();
        assert_eq!(applies, [false, false, false, true]);
        assert_eq!(peaks["gold.x"], 0.7);
        assert!(
            reason(&rule(Condition::Below { value: 0.6 }), 0.59, &mut peaks)
                .expect("below")
                .contains("0.59")
        );
        assert!(reason(&rule(Condition::Above { value: 0.6 }), 0.59, &mut peaks).is_none());
    }
}

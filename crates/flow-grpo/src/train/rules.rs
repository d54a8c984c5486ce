//! Rules: automatic actions of a run when a metric of an evaluation passes a limit.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The metric of an evaluation to watch, named as in `best_by`.
    pub watch: String,
    /// The condition for the action.
    pub when: Condition,
    /// The action.
    pub action: Action,
}

/// The condition of a rule on its watched metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// The metric is below a value.
    Below {
        /// The value.
        value: f64,
    },
    /// The metric is above a value.
    Above {
        /// The value.
        value: f64,
    },
    /// The metric is lower than its peak by more than a threshold.
    Fallen {
        /// The threshold.
        #[schemars(extend("exclusiveMinimum" = 0))]
        by: f64,
    },
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Ends the run.
    Stop {},
    /// Continues from the weights and optimiser state of the best evaluation, with new noise.
    RollBack {},
    /// Multiplies the weight `β` of the KL penalty.
    RaiseKl {
        /// The factor, above 1.
        #[schemars(extend("exclusiveMinimum" = 1))]
        factor: f64,
    },
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

//! The actions of the rules after an evaluation.

use anyhow::Result;
use pipelines::Pipeline;
use run::{
    RunDir,
    record::{ActionLine, number},
};
use serde_json::Value;

use super::Session;
use crate::{
    backend::Training,
    checkpoints::training_state::SavedState,
    train::rules::{self, Action},
};

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Applies the rules to an evaluation, and records each action with its reason.
    pub(super) fn apply_rules(&mut self, evaluation: &Value, run: &mut RunDir) -> Result<()> {
        let epoch = self.trainer.epoch();
        for rule in &self.config.rules {
            let value = number(evaluation, &rule.watch)?;
            let Some(mut reason) = rules::reason(rule, value, &mut self.watched.peaks) else {
                continue;
            };
            match rule.action {
                Action::Stop {} => self.watched.stopped = true,
                Action::RaiseKl { factor } => {
                    let weight = self.trainer.kl_weight();
                    self.trainer.set_kl_weight(weight * factor);
                    reason += &format!("; the KL weight goes from {weight} to {}", weight * factor);
                }
                Action::RollBack {} => match self.watched.best.filter(|best| best.epoch < epoch) {
                    // Missing if the run was rolled back to before a later best, whose checkpoint
                    // had replaced it.
                    Some(best) if !run.checkpoint(best.epoch).exists() => {
                        reason += &format!(
                            "; the checkpoint of epoch {} is gone, nothing is done",
                            best.epoch
                        );
                    }
                    Some(best) => match SavedState::read(&run.checkpoint(best.epoch)) {
                        Ok(saved) => {
                            self.roll_back(saved)?;
                            reason += &format!(
                                "; the weights are those after epoch {} again",
                                best.epoch
                            );
                        }
                        Err(error) => reason += &format!("; {error:#}: nothing is done"),
                    },
                    None => reason += "; no evaluation before this one was better, nothing is done",
                },
            }
            self.view.say(&format!("epoch {epoch:>4}  rule: {reason}"));
            run.append(&ActionLine { event: "action", epoch, action: rule.action, reason })?;
        }
        Ok(())
    }

    fn roll_back(&mut self, saved: SavedState) -> Result<()> {
        let policy = self.trainer.averaged_policy();
        self.trainer.roll_back(saved.state(&policy, self.trainer.weights(), self.device)?);
        Ok(())
    }
}

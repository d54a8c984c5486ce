//! The best evaluation: how a policy is chosen, and kept.

use anyhow::Result;
use pipelines::Pipeline;
use run::{RunDir, record::number};
use serde_json::Value;

use super::Session;
use crate::{
    backend::Training,
    checkpoints::training_state::SavedState,
    train::{record::Best, tuning::write_policy},
};

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Keeps the policy of an evaluation if its number `best_by` is the highest so far.
    pub(super) fn choose(
        &mut self,
        evaluation: &Value,
        policy: P::Network,
        run: &RunDir,
    ) -> Result<()> {
        let value = number(evaluation, &self.config.best_by)?;
        if self.watched.best.is_some_and(|best| value <= best.value) {
            return Ok(());
        }
        self.watched.best = Some(Best { epoch: self.trainer.epoch(), value });
        self.write_best_policy(policy, run)
    }

    /// Whether the state after this epoch must be saved: it is the best one, or a rule ended the
    /// run.
    pub(super) fn must_save(&self, epoch: usize) -> bool {
        self.watched.stopped || self.watched.best.is_some_and(|best| best.epoch == epoch)
    }

    /// Restores the files of the best policy from its checkpoint, if that is there and intact.
    pub(super) fn write_best(&mut self, run: &RunDir) -> Result<()> {
        let Some(path) =
            self.watched.best.map(|best| run.checkpoint(best.epoch)).filter(|path| path.exists())
        else {
            return Ok(());
        };
        let saved = match SavedState::read(&path) {
            Ok(saved) => saved,
            Err(error) => {
                self.view.say(&format!(
                    "warning: the best evaluation's weights stay as they were written: {error:#}"
                ));
                return Ok(());
            }
        };
        let policy = self.trainer.averaged_policy();
        let state = saved.state(&policy, self.trainer.weights(), self.device)?;
        self.write_best_policy(state.average.put_into(policy), run)
    }

    fn write_best_policy(&self, policy: P::Network, run: &RunDir) -> Result<()> {
        let (file, directory) = (run.best_checkpoint(), run.best_adapter());
        write_policy(self.config, &self.pipeline, policy, &file, &directory)
    }
}

//! Evaluations during a run.

use std::{path::Path, time::Duration};

use anyhow::Result;
use grpo::evaluate::Row;
use pipelines::Pipeline;
use run::{RunDir, SampleSet, record::EvaluationLine};
use tasks::{image::Image, prompts::Prompt};
use training::noise::{Key, Purpose};

use super::Session;
use crate::{
    backend::Training,
    evaluation::{
        Evaluation, Evaluator, Prompts, Sampling,
        monitors::{BASE_DISTANCE, Features, Monitors},
    },
    train::config::TrainConfig,
};

/// ODE steps of an evaluation, as in the paper.
pub(super) const EVALUATION_STEPS: usize = 40;

/// Sampling settings of a run's evaluations.
pub fn sampling(config: &TrainConfig) -> Sampling {
    let rollout = &config.grpo.rollout;
    let key = Key::new(config.seed, Purpose::Evaluation);
    Sampling {
        key,
        grid: rollout.grid,
        steps: EVALUATION_STEPS,
        guidance: config.evaluation_guidance,
    }
}

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Evaluates the averaged policy on the validation prompts and saves it if it is the best so
    /// far. Test and unseen prompts, which choose nothing, are evaluated only before the first and
    /// after the last epoch.
    pub(super) fn evaluate(&mut self, run: &mut RunDir) -> Result<()> {
        let epoch = self.trainer.epoch();
        let policy = self.trainer.averaged_policy();
        let rows = self.validation.rows(self.config.evaluation_samples);
        let (validation, images) = self.evaluate_on(
            &policy,
            &self.validation,
            &rows,
            &run.samples(SampleSet::Validation, epoch),
        )?;
        let gold = self.validation.means(&self.gold, &images, &rows)?;
        let monitors = self.monitors(&images, &rows)?;
        let drift = monitors.relative_to(&self.watched.base_monitors);
        self.view.say(&format!("epoch {epoch:>4}  validation: {}", validation.line()));
        run.append_image(SampleSet::Validation, epoch)?;
        let test = self.evaluate_at_ends(&policy, self.test.as_ref(), SampleSet::Test, run)?;
        let unseen =
            self.evaluate_at_ends(&policy, self.unseen.as_ref(), SampleSet::Unseen, run)?;
        for (set, evaluation) in [(SampleSet::Test, &test), (SampleSet::Unseen, &unseen)] {
            if let Some(evaluation) = evaluation {
                self.view.say(&format!(
                    "epoch {epoch:>4}  {:<11} {}",
                    format!("{}:", set.name()),
                    evaluation.line()
                ));
                run.append_image(set, epoch)?;
            }
        }
        if epoch == self.config.epochs {
            self.view.say(monitors.drift_table(&self.watched.base_monitors).trim_end());
        }
        let metrics = EvaluationLine {
            event: "eval",
            epoch,
            validation,
            gold,
            monitors,
            drift,
            test,
            unseen,
        };
        run.append(&metrics)?;
        let metrics = serde_json::to_value(&metrics)?;
        self.view.take(&metrics, Duration::ZERO);
        self.choose(&metrics, policy, run)?;
        self.apply_rules(&metrics, run)?;
        self.evaluation_due = false;
        Ok(())
    }

    /// Evaluates on prompts, if there are any, before the first and after the last epoch.
    fn evaluate_at_ends(
        &self,
        policy: &P::Network,
        prompts: Option<&Prompts<P::Condition>>,
        set: SampleSet,
        run: &RunDir,
    ) -> Result<Option<Evaluation>> {
        let epoch = self.trainer.epoch();
        let Some(prompts) = prompts.filter(|_| epoch == 0 || epoch == self.config.epochs) else {
            return Ok(None);
        };
        let rows = prompts.rows(self.config.evaluation_samples);
        Ok(Some(self.evaluate_on(policy, prompts, &rows, &run.samples(set, epoch))?.0))
    }

    fn evaluate_on(
        &self,
        policy: &P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        image: &Path,
    ) -> Result<(Evaluation, Vec<Image>)> {
        let evaluator = Evaluator {
            pipeline: &self.pipeline,
            workers: self.trainer.workers(),
            device: self.device,
            sampling: sampling(self.config),
        };
        let images = evaluator.generate(policy.clone(), prompts, rows)?;
        prompts.write_images(&images, rows, image)?;
        let reward = Some(self.trainer.reward());
        Ok((Evaluation::of(prompts, &images, rows, reward)?, images))
    }

    /// The monitors of an evaluation; the images of the first evaluation are those of the base
    /// model.
    fn monitors(&mut self, images: &[Image], rows: &[Row]) -> Result<Monitors> {
        let features = Features::of(images);
        let prompts: Vec<&Prompt> = rows.iter().map(|row| self.validation.prompt(row)).collect();
        let mut monitors = Monitors::of(images, rows, &prompts)?;
        if self.trainer.epoch() == 0 {
            self.watched.base.clone_from(&features);
            self.watched.base_monitors.clone_from(&monitors);
        }
        if let Some((now, base)) = features.zip(self.watched.base.as_ref()) {
            monitors.insert(BASE_DISTANCE, now.distance(base));
        }
        Ok(monitors)
    }
}

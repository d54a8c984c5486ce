//! The report, written now and then during a run.

use std::time::Instant;

use anyhow::Result;
use pipelines::Pipeline;
use run::{
    RunDir, RunError,
    report::{Best, Facts, Report},
};

use super::Session;
use crate::backend::Training;

/// Time between two reports during a run, in units of the duration of the last one, so that reports
/// take at most 2 % of a run.
const REPORT_SHARE: u32 = 50;

/// A way to write a report.
type Write = fn(&mut Report, &RunDir, &Facts<'_>) -> Result<(), RunError>;

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Writes the whole report, with images evenly spread over the run. A failure is no reason to
    /// lose a run.
    pub(super) fn report(&mut self, run: &RunDir) {
        self.report_by(run, Report::write);
    }

    /// Brings the report up to date after an evaluation, unless the last one is too recent.
    pub(super) fn report_if_due(&mut self, run: &RunDir) {
        if self.reported.is_none_or(|(at, took)| at.elapsed() > took * REPORT_SHARE) {
            self.report_by(run, Report::update);
        }
    }

    fn report_by(&mut self, run: &RunDir, write: Write) {
        let started = Instant::now();
        if let Err(error) = self.write_report(run, write) {
            self.view.say(&format!("warning: the report cannot be written: {error:#}"));
        }
        self.reported = Some((Instant::now(), started.elapsed()));
    }

    fn write_report(&mut self, run: &RunDir, write: Write) -> Result<()> {
        let facts = Facts {
            epochs: self.config.epochs,
            prompts: self.config.grpo.groups,
            images: self.config.grpo.group_size,
            base: &self.config.base,
            made_by: &self.pipeline.made_by(),
            best_by: &self.config.best_by,
            best: self.watched.best.map(|best| Best { epoch: best.epoch, value: best.value }),
            configuration: &toml::to_string(self.config)?,
        };
        Ok(write(&mut self.page, run, &facts)?)
    }
}

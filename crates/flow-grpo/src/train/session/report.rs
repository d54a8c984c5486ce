//! The report, written now and then during a run.

use std::time::Instant;

use anyhow::Result;
use pipelines::Pipeline;
use run::{
    RunDir,
    report::{self, Facts},
};

use super::Session;
use crate::backend::Training;

/// Time between two reports during a run, in units of the duration of the last one, so that reports
/// take at most 2 % of a run.
const REPORT_SHARE: u32 = 50;

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Writes the report. A failure is no reason to lose a run.
    pub(super) fn report(&mut self, run: &RunDir) {
        let started = Instant::now();
        if let Err(error) = self.write_report(run) {
            self.view.say(&format!("warning: the report cannot be written: {error:#}"));
        }
        self.reported = Some((Instant::now(), started.elapsed()));
    }

    /// Writes the report after an evaluation, unless the last one is too recent.
    pub(super) fn report_if_due(&mut self, run: &RunDir) {
        if self.reported.is_none_or(|(at, took)| at.elapsed() > took * REPORT_SHARE) {
            self.report(run);
        }
    }

    fn write_report(&self, run: &RunDir) -> Result<()> {
        let facts = Facts {
            epochs: self.config.epochs,
            prompts: self.config.grpo.groups,
            images: self.config.grpo.group_size,
            base: &self.config.base,
            made_by: &self.pipeline.made_by(),
            configuration: &toml::to_string(self.config)?,
        };
        Ok(report::write(run, &facts)?)
    }
}

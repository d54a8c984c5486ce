//! The best and worst images of some groups of an epoch, with their rewards and advantages.

use anyhow::Result;
use grpo::Iteration;
use pipelines::Pipeline;
use run::{
    RunDir, SampleSet,
    png::{self, Captioned, Mark},
};
use tasks::prompts::Prompt;

use super::Session;
use crate::{
    backend::Training,
    evaluation::{caption, verdict},
};

/// Number of groups in a grid.
const GROUPS: usize = 3;
/// Number of images at each end of a group.
const EACH: usize = 2;

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Writes the grid: a row for each of the first groups, from its highest to its lowest
    /// advantage. Points of the plane have none.
    pub(super) fn write_groups(&self, iteration: &Iteration, run: &RunDir) -> Result<()> {
        if iteration.images.first().is_none_or(|image| image.channels == 2) {
            return Ok(());
        }
        let chosen = ends(&iteration.advantages, self.config.grpo.group_size);
        let notes: Vec<String> = chosen
            .iter()
            .map(|&row| {
                format!("{:.3}  {:+.2}", iteration.scores.total[row], iteration.advantages[row])
            })
            .collect();
        let cells: Vec<Captioned<'_>> = chosen
            .iter()
            .zip(&notes)
            .map(|(&row, note)| {
                let image = &iteration.images[row];
                let prompt: &Prompt = &self.trainer.prompts()[iteration.rows[row].prompt].prompt;
                let right = verdict(image, prompt).map(|verdict| verdict.strict());
                let mark = Some(Mark { right, text: note });
                Captioned { image, caption: caption(prompt), mark }
            })
            .collect();
        let path = run.samples(SampleSet::Training, self.trainer.epoch());
        Ok(png::write_grid(&cells, cells.len().div_ceil(GROUPS), &path)?)
    }
}

/// The rows at both ends of the first groups, ordered by advantage; all rows of a small group.
fn ends(advantages: &[f32], group_size: usize) -> Vec<usize> {
    let of_group = |group: usize| {
        let first = group * group_size;
        let mut rows: Vec<usize> = (first..first + group_size).collect();
        rows.sort_by(|&a, &b| advantages[b].total_cmp(&advantages[a]));
        if group_size > 2 * EACH {
            rows.drain(EACH..group_size - EACH);
        }
        rows
    };
    (0..GROUPS.min(advantages.len() / group_size)).flat_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_group_shows_its_ends_and_a_small_one_all_of_itself() {
        let advantages = [0.0, 2.0, -2.0, 1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0];
        assert_eq!(ends(&advantages, 6), [1, 3, 4, 2, 11, 6, 9, 10]);
        assert_eq!(ends(&advantages[..4], 2), [1, 0, 3, 2]);
        assert_eq!(ends(&[0.0; 40], 8).len(), GROUPS * 2 * EACH);
    }
}

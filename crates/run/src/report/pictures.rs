//! The images of a report: which evaluations are shown, and their elements.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{Markup, html};
use serde_json::Value;

use crate::{RunDir, SampleSet, lines::of_event, samples};

/// The sets in their order on the page, with their headings.
pub(super) const SETS: [(SampleSet, &str); 4] = [
    (SampleSet::Validation, "Images for validation prompts, which choose the best checkpoint"),
    (SampleSet::Training, "Best and worst images of some training groups"),
    (SampleSet::Test, "Images for test prompts, which choose nothing"),
    (SampleSet::Unseen, "Images for unseen prompts, which choose nothing"),
];

/// A sample grid of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub set: SampleSet,
    pub epoch: usize,
}

/// Number of evaluations behind a slider: all evaluations of a long run would make a page of
/// hundreds of megabytes. All are in `samples/`.
pub(super) const SHOWN: usize = 16;

/// The sample grids of all evaluations.
pub(super) fn all(run: &RunDir, lines: &[Value]) -> Vec<Picture> {
    let of_set = |set: SampleSet| {
        let evaluations = of_event(lines, "eval").filter(move |line| match set {
            SampleSet::Test | SampleSet::Unseen => line.get(set.name()).is_some(),
            _ => true,
        });
        let epochs = evaluations.filter_map(|line| line["epoch"].as_u64());
        let picture = move |epoch| Picture { set, epoch: epoch as usize };
        // Not every task has images of groups to show.
        let drawn = move |picture: &Picture| {
            set != SampleSet::Training || picture.path(run.path()).exists()
        };
        epochs.map(picture).filter(drawn)
    };
    SETS.iter().flat_map(|(set, _)| of_set(*set)).collect()
}

/// The first sample grid of every set and at most [`SHOWN`] later ones, evenly spread, including
/// the last.
pub(super) fn chosen(all: &[Picture]) -> Vec<Picture> {
    let of_set = |set: SampleSet| {
        let of_set: Vec<Picture> = all.iter().copied().filter(|one| one.set == set).collect();
        let (first, later) = of_set.split_at(of_set.len().min(1));
        let spread = spread(later, SHOWN);
        first.iter().copied().chain(spread).collect::<Vec<_>>()
    };
    SETS.iter().flat_map(|(set, _)| of_set(*set)).collect()
}

/// At most `count` of some items, evenly spread, including the last.
fn spread<T: Copy>(items: &[T], count: usize) -> Vec<T> {
    let n = items.len();
    let count = count.min(n);
    (1..=count).map(|i| items[i * n / count - 1]).collect()
}

impl Picture {
    /// The path of the file in the directory of a run.
    pub fn path(self, run: &Path) -> PathBuf {
        samples::path(run, self.set, self.epoch)
    }

    /// The element of a sample grid, or the reason why it cannot be shown.
    pub fn figure(self, run: &RunDir) -> Markup {
        let Self { set, epoch } = self;
        let name = set.name();
        html! {
            figure .frame .(name) data-epoch=(epoch) {
                @match std::fs::read(self.path(run.path())) {
                    Ok(png) => img alt={ (name) " images after epoch " (epoch) } src=(data_url(&png));,
                    Err(error) => p { "epoch " (epoch) ": the image cannot be read (" (error) ")" }
                }
                figcaption { "epoch " (epoch) }
            }
        }
    }
}

/// A PNG file as the address of an image.
pub(super) fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_a_long_run_are_few_and_evenly_spread() {
        let epochs: Vec<u64> = (1..=800).collect();
        assert_eq!(spread(&epochs, 4), [200, 400, 600, 800]);
        assert_eq!(spread(&epochs[..3], 4), [1, 2, 3]);
        assert_eq!(spread(&epochs[..5], 4), [1, 2, 3, 5]);
        let picture = |set, epoch| Picture { set, epoch };
        let mut all: Vec<Picture> =
            (0..=64).map(|epoch| picture(SampleSet::Validation, epoch)).collect();
        all.extend([0, 64].map(|epoch| picture(SampleSet::Test, epoch)));
        let chosen = chosen(&all);
        assert_eq!(chosen.len(), 17 + 2);
        assert_eq!(chosen[..2], [all[0], all[4]]);
        assert_eq!(chosen[16..], [all[64], all[65], all[66]]);
    }
}

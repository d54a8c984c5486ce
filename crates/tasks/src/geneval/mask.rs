//! The mask of a detection, in the run lengths of COCO.

use serde::{Deserialize, Serialize};

/// The pixels of an object, as runs: down the first column, then the next. The first run is of
/// pixels outside the object, and may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Mask {
    height: usize,
    width: usize,
    runs: Vec<usize>,
}

/// A mask in a file: `size` is `[height, width]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    size: [usize; 2],
    counts: Counts,
}

/// Run lengths, or the text that pycocotools makes of them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Counts {
    Runs(Vec<usize>),
    Text(String),
}

impl Mask {
    /// Makes a mask of `[height, width]` pixels from its runs.
    ///
    /// # Errors
    /// If the runs do not cover the pixels exactly.
    pub fn new([height, width]: [usize; 2], runs: Vec<usize>) -> Result<Self, String> {
        let covered = runs.iter().try_fold(0_usize, |sum, run| sum.checked_add(*run));
        if covered.is_none() || covered != height.checked_mul(width) {
            return Err(format!("the runs of a mask do not cover its {height} x {width} pixels"));
        }
        Ok(Self { height, width, runs })
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Whether each pixel belongs to the object, column by column.
    pub(super) fn columns(&self) -> impl Iterator<Item = bool> {
        let run = |(index, &length): (usize, &usize)| std::iter::repeat_n(index % 2 == 1, length);
        self.runs.iter().enumerate().flat_map(run)
    }
}

impl TryFrom<Written> for Mask {
    type Error = String;

    fn try_from(Written { size, counts }: Written) -> Result<Self, String> {
        let runs = match counts {
            Counts::Runs(runs) => runs,
            Counts::Text(text) => {
                runs_of(&text).ok_or("`counts` of a mask is no text of COCO's")?
            }
        };
        Self::new(size, runs)
    }
}

impl From<Mask> for Written {
    fn from(mask: Mask) -> Self {
        Self { size: mask.size(), counts: Counts::Runs(mask.runs) }
    }
}

/// The runs of a text of COCO's: numbers of five bits a letter, low bits first; from the fourth on,
/// a number is the difference to the run before the last.
fn runs_of(text: &str) -> Option<Vec<usize>> {
    let mut runs: Vec<i64> = Vec::new();
    let mut letters = text.bytes();
    while letters.len() > 0 {
        let (mut number, mut shift) = (0_i64, 0_u32);
        loop {
            let bits = i64::from(letters.next()?.checked_sub(48)?);
            if bits > 0x3f || shift > 40 {
                return None;
            }
            number |= (bits & 0x1f) << shift;
            shift += 5;
            if bits & 0x20 == 0 {
                if bits & 0x10 != 0 {
                    number |= -1 << shift;
                }
                break;
            }
        }
        if let Some(before) = runs.len().checked_sub(2).filter(|_| runs.len() > 2) {
            number += runs[before];
        }
        runs.push(number);
    }
    runs.into_iter().map(|run| usize::try_from(run).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_down_the_columns() {
        let mask = Mask::new([2, 3], vec![1, 2, 3]).expect("six pixels");
        let columns: Vec<bool> = mask.columns().collect();
        assert_eq!(columns, [false, true, true, false, false, false]);
        for runs in [vec![1, 2], vec![7], vec![usize::MAX, 7]] {
            assert!(Mask::new([2, 3], runs).is_err());
        }
    }

    #[test]
    fn a_text_that_is_none_of_coco_is_refused() {
        for text in ["o", "\u{7f}", "!", "ooooooooooooooo0"] {
            assert_eq!(runs_of(text), None, "{text:?}");
        }
        assert_eq!(runs_of(""), Some(vec![]));
        assert_eq!(runs_of("O"), None, "a run of -1");
    }
}

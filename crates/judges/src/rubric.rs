//! Questions to vision-language models, and the grammar of their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, end_of};

/// A question about an image and the rule that reads a score from the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rubric {
    /// UnifiedReward 1.5: one score from 1 to 5 after `Final Score:`, divided by 5.
    ///
    /// Images are resized to 512 x 512, as in the reference code. Source: the reward
    /// `unifiedreward` of the reference code. Deviations: an answer without a score is an error
    /// (the reference takes 0), and a number outside of 1 to 5 is no score (the reference takes
    /// the first digit of 10).
    #[default]
    UnifiedReward,
    /// UnifiedReward 2.0: alignment, coherence and style, each from 1 to 5; their mean, scaled to
    /// `[0, 1]`.
    ///
    /// Source: the published question of UnifiedReward (MIT); the mean and the scale as in
    /// verl-omni.
    UnifiedReward2,
    /// A question of one's own.
    Custom(Question),
}

/// A question of one's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The question; `{prompt}` stands for the prompt.
    pub text: String,
    /// Words right before the score in the answer, such as `Score:`.
    pub marker: String,
    /// The lowest score; it becomes 0.
    pub lowest: f32,
    /// The highest score; it becomes 1.
    pub highest: f32,
}

/// The question that UnifiedReward 1.5 was trained on. Other words would make another judge.
const UNIFIED_REWARD: &str = "<image>\nYou are given a text caption and a generated image based \
on that caption. Your task is to evaluate this image based on two key criteria:\n1. Alignment \
with the Caption: Assess how well this image aligns with the provided caption. Consider the \
accuracy of depicted objects, their relationships, and attributes as described in the caption.\n2. \
Overall Image Quality: Examine the visual quality of this image, including clarity, detail \
preservation, color accuracy, and overall aesthetic appeal.\nBased on the above criteria, assign \
a score from 1 to 5 after 'Final Score:'.\nYour task is provided as follows:\nText Caption: \
[{prompt}]";

/// The question that UnifiedReward 2.0 was trained on.
const UNIFIED_REWARD_2: &str = "You are presented with a generated image and its associated text \
caption. Your task is to analyze the image across multiple dimensions in relation to the caption. \
Specifically:\nProvide overall assessments for the image along the following axes (each rated \
from 1 to 5):\n- Alignment Score: How well the image matches the caption in terms of content.\n- \
Coherence Score: How logically consistent the image is (absence of visual glitches, object \
distortions, etc.).\n- Style Score: How aesthetically appealing the image looks, regardless of \
caption accuracy.\n\nOutput your evaluation using the format below:\n\nAlignment Score (1-5): \
X\nCoherence Score (1-5): Y\nStyle Score (1-5): Z\n\nYour task is provided as follows:\nText \
Caption: [{prompt}]";

/// Scores that follow markers, and their range; `zero` becomes 0 and `highest` becomes 1.
struct Grammar<'a> {
    markers: &'a [&'a str],
    lowest: f32,
    highest: f32,
    zero: f32,
}

impl Rubric {
    /// The question about an image of a prompt.
    pub fn question(&self, prompt: &str) -> String {
        let text = match self {
            Self::UnifiedReward => UNIFIED_REWARD,
            Self::UnifiedReward2 => UNIFIED_REWARD_2,
            Self::Custom(question) => &question.text,
        };
        text.replace("{prompt}", prompt)
    }

    /// The side to which images are resized, if they are.
    pub(crate) fn side(&self) -> Option<u32> {
        matches!(self, Self::UnifiedReward).then_some(512)
    }

    /// Reads the score of an answer.
    ///
    /// ```text
    /// score = mean over markers of (x − zero) / (highest − zero)
    /// ```
    ///
    /// `x` is the first number in range right behind the marker; only white space may stand
    /// between.
    ///
    /// # Errors
    /// If a marker is followed by no number in range.
    pub fn score(&self, answer: &str) -> Result<f32, Fault> {
        match self {
            Self::UnifiedReward => {
                let markers = &["Final Score:"];
                Grammar { markers, lowest: 1.0, highest: 5.0, zero: 0.0 }.score(answer)
            }
            Self::UnifiedReward2 => {
                let markers =
                    &["Alignment Score (1-5):", "Coherence Score (1-5):", "Style Score (1-5):"];
                Grammar { markers, lowest: 1.0, highest: 5.0, zero: 1.0 }.score(answer)
            }
            Self::Custom(Question { marker, lowest, highest, .. }) => {
                let (lowest, highest) = (*lowest, *highest);
                Grammar { markers: &[marker], lowest, highest, zero: lowest }.score(answer)
            }
        }
    }

    /// All values that are out of range, each with its key.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Self::Custom(Question { text, marker, lowest, highest }) = self else {
            return Vec::new();
        };
        let finite = lowest.is_finite() && highest.is_finite();
        let rules = [
            (text.contains("{prompt}"), "rubric.text: must contain {prompt}"),
            (!marker.trim().is_empty(), "rubric.marker: the words before the score"),
            (finite && lowest < highest, "rubric.highest: must be above `lowest`"),
        ];
        rules.iter().filter(|(holds, _)| !holds).map(|(_, text)| (*text).to_owned()).collect()
    }
}

impl Grammar<'_> {
    fn score(&self, answer: &str) -> Result<f32, Fault> {
        let mut sum = 0.0;
        for marker in self.markers {
            let number = self.number_after(marker, answer).ok_or_else(|| Fault::Unscored {
                marker: (*marker).to_owned(),
                answer: end_of(answer),
            })?;
            sum += (number - self.zero) / (self.highest - self.zero);
        }
        Ok(sum / self.markers.len() as f32)
    }

    /// The first number in range right behind a marker; a model may repeat the question first.
    fn number_after(&self, marker: &str, answer: &str) -> Option<f32> {
        answer.match_indices(marker).find_map(|(at, _)| {
            let number = leading_number(answer[at + marker.len()..].trim_start())?;
            (self.lowest..=self.highest).contains(&number).then_some(number)
        })
    }
}

/// The decimal number at the start of a text: digits, with a sign and a fraction if there are.
fn leading_number(text: &str) -> Option<f32> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let sign = usize::from(text.starts_with('-'));
    let whole = digits(sign);
    if whole == 0 {
        return None;
    }
    let mut end = sign + whole;
    if text[end..].starts_with('.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_reward_divides_the_final_score_by_five() {
        let rubric = Rubric::UnifiedReward;
        for (answer, score) in [
            ("Final Score: 5", 1.0),
            ("A cube (object): 1\nFinal Score:\n 4.5\n", 0.9),
            ("I put it after 'Final Score:'. Final Score: 3.", 0.6),
            ("Final Score: 1.25 Final Score: 5", 0.25),
            ("Final Score: 10, no: Final Score: 2", 0.4),
        ] {
            assert_eq!(rubric.score(answer), Ok(score), "{answer:?}");
        }
        for answer in ["", "Score: 4", "Final Score: good", "Final Score: 0", "Final Score: 5.5"] {
            assert!(matches!(rubric.score(answer), Err(Fault::Unscored { .. })), "{answer:?}");
        }
    }

    #[test]
    fn unified_reward_2_needs_all_three_scores() {
        let rubric = Rubric::UnifiedReward2;
        let all = "Alignment Score (1-5): 3\nCoherence Score (1-5): 5\nStyle Score (1-5): 1";
        assert_eq!(rubric.score(all), Ok(0.5));
        let two = "Alignment Score (1-5): 3\nCoherence Score (1-5): 5";
        let fault = rubric.score(two).expect_err("no style");
        assert!(fault.to_string().contains("Style Score"), "{fault}");
    }

    #[test]
    fn a_question_of_ones_own_is_scaled_to_the_unit_interval() {
        let rubric = Rubric::Custom(Question {
            text: "Is it {prompt}?".to_owned(),
            marker: "Mark:".to_owned(),
            lowest: -10.0,
            highest: 10.0,
        });
        assert!(rubric.problems().is_empty());
        assert_eq!(rubric.question("red"), "Is it red?");
        assert_eq!(rubric.score("Mark: -10"), Ok(0.0));
        assert_eq!(rubric.score("Mark: 5"), Ok(0.75));
        let wrong = Rubric::Custom(Question {
            text: "Is it good?".to_owned(),
            marker: " ".to_owned(),
            lowest: 1.0,
            highest: 1.0,
        });
        assert_eq!(wrong.problems().len(), 3);
    }

    #[test]
    fn the_caption_stands_in_brackets_at_the_end() {
        for rubric in [Rubric::UnifiedReward, Rubric::UnifiedReward2] {
            let question = rubric.question("two dogs");
            assert!(question.ends_with("follows:\nText Caption: [two dogs]"), "{question}");
            assert!(!question.contains("  "), "{question}");
        }
    }
}

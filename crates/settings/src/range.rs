//! Ranges of numbers, as a schema states them.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

/// The bounds of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Whether only whole numbers are allowed.
    whole: bool,
    least: Option<f64>,
    above: Option<f64>,
    most: Option<f64>,
    below: Option<f64>,
}

impl Range {
    /// The range that a schema states; `None` if it describes no number.
    pub fn of(schema: &Value) -> Option<Self> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let is = |name: &str| match &schema["type"] {
            Value::Array(names) => names.iter().any(|one| one == name),
            one => one == name,
        };
        (is("number") || is("integer")).then(|| Self {
            whole: is("integer"),
            least: bound("minimum"),
            above: bound("exclusiveMinimum"),
            most: bound("maximum"),
            below: bound("exclusiveMaximum"),
        })
    }

    fn holds(self, value: f64) -> bool {
        self.least.is_none_or(|least| value >= least)
            && self.above.is_none_or(|above| value > above)
            && self.most.is_none_or(|most| value <= most)
            && self.below.is_none_or(|below| value < below)
    }

    /// A sentence that begins with the key, if the value is a number outside.
    pub fn problem(self, key: &str, value: &toml::Value) -> Option<String> {
        let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))?;
        let inside = number.is_finite() && self.holds(number);
        (!inside).then(|| format!("{key} ({number}) must {}", self.must()))
    }

    fn must(self) -> String {
        match self {
            Self { least: Some(least), most: Some(most), .. } => {
                format!("lie between {least} and {most}")
            }
            Self { above: Some(0.0), most: None, below: None, .. } => {
                "be a positive number".to_owned()
            }
            _ => match self.bounds() {
                bounds if bounds.is_empty() => "be a finite number".to_owned(),
                bounds => format!("be {}", bounds.join(" and ")),
            },
        }
    }

    fn bounds(self) -> Vec<String> {
        let bounds = [
            self.least.map(|least| format!("at least {least}")),
            self.above.map(|above| format!("above {above}")),
            self.most.map(|most| format!("at most {most}")),
            self.below.map(|below| format!("below {below}")),
        ];
        bounds.into_iter().flatten().collect()
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.whole { "an integer" } else { "a number" })?;
        match (self.least, self.most, self.bounds()) {
            (Some(least), Some(most), _) => write!(f, " from {least} to {most}"),
            (_, _, bounds) if bounds.is_empty() => Ok(()),
            (Some(_), ..) => write!(f, " of {}", self.bounds().join(" and ")),
            (.., bounds) => write!(f, " {}", bounds.join(" and ")),
        }
    }
}

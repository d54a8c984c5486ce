//! Renames the tensors of another layout by a table of rules.

use super::tensor_files::{Stored, TensorFiles};

/// One rule of a layout: tensors whose names match `from` get the name `to`.
///
/// Names are compared piece by piece, at the dots. A `*` in `from` matches any piece; the `*`s of
/// `to` stand for the matched pieces in order. `~` in `to` stands for a matched number, counted
/// from the other end: the largest number is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Names in the other layout.
    pub from: &'static str,
    /// Names in the layout of diffusers.
    pub to: &'static str,
    /// The change of the values.
    pub change: Change,
}

/// What happens to the values of a renamed tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Nothing.
    Keep,
    /// The two halves of the first dimension change places: one layout stores shift before scale,
    /// the other scale before shift.
    SwapHalves,
    /// Like `SwapHalves`, in a file without a tensor of this name.
    SwapHalvesWithout(&'static str),
    /// The first dimension is split; `@` in `to` stands for the name of a part. Each part has its
    /// share of the rows.
    Split(&'static [(&'static str, usize)]),
    /// A convolution of one pixel becomes a linear layer.
    Linear,
    /// Rows become columns: one layout stores a matrix as `[inputs, outputs]`.
    Transpose,
}

/// A rule that keeps the values.
pub(crate) const fn keep(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::Keep }
}

/// A rule that swaps the halves.
pub(crate) const fn swap(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::SwapHalves }
}

/// A rule that splits the first dimension.
pub(crate) const fn split(
    from: &'static str,
    to: &'static str,
    parts: &'static [(&'static str, usize)],
) -> Rule {
    Rule { from, to, change: Change::Split(parts) }
}

/// A rule that makes a linear layer of a convolution.
pub(crate) const fn linear(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::Linear }
}

/// A rule that transposes a matrix.
pub(crate) const fn transposed(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to, change: Change::Transpose }
}

/// Renames the tensors whose names begin with `prefix` by the first rule that matches. A tensor
/// that no rule matches keeps its name without the prefix.
pub(crate) fn renamed(files: &TensorFiles, prefix: &str, rules: &[Rule]) -> TensorFiles {
    let mut result = TensorFiles::default();
    for name in files.names() {
        let Some(own) = name.strip_prefix(prefix) else { continue };
        let stored = files.stored(name).expect("it was just named");
        let found = rules.iter().find_map(|rule| Some((rule, matched(rule.from, own)?)));
        let tensors = found
            .and_then(|(rule, pieces)| Renaming { files, prefix, rule, pieces }.of(stored.clone()));
        for (name, stored) in tensors.unwrap_or_else(|| vec![(own.to_owned(), stored)]) {
            result.insert(name, stored);
        }
    }
    result
}

/// The pieces of `name` that the `*`s of a pattern match; `None` if it does not match.
fn matched<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    if pattern.split('.').count() != name.split('.').count() {
        return None;
    }
    let mut pieces = Vec::new();
    for (wanted, piece) in pattern.split('.').zip(name.split('.')) {
        match wanted {
            "*" => pieces.push(piece),
            wanted if wanted != piece => return None,
            _ => {}
        }
    }
    Some(pieces)
}

/// A rule that matched a tensor.
struct Renaming<'a> {
    files: &'a TensorFiles,
    prefix: &'a str,
    rule: &'a Rule,
    pieces: Vec<&'a str>,
}

impl Renaming<'_> {
    fn of(&self, stored: Stored) -> Option<Vec<(String, Stored)>> {
        let to = self.name(self.rule.to)?;
        Some(match self.rule.change {
            Change::Keep => vec![(to, stored)],
            Change::SwapHalves => vec![(to, stored.halves_swapped())],
            Change::SwapHalvesWithout(pattern) => {
                let other = format!("{}{}", self.prefix, self.name(pattern)?);
                let is_there = self.files.shape(&other).is_some();
                vec![(to, if is_there { stored } else { stored.halves_swapped() })]
            }
            Change::Split(parts) => {
                let all = parts.iter().map(|(_, share)| share).sum();
                let mut from = 0;
                let split = parts.iter().map(|&(part, share)| {
                    let rows = stored.rows(from..from + share, all);
                    from += share;
                    (to.replace('@', part), rows)
                });
                split.collect()
            }
            Change::Linear => {
                let shape = stored.shape.iter().take(2).copied().collect();
                vec![(to, stored.reshaped(shape))]
            }
            Change::Transpose => vec![(to, stored.transposed())],
        })
    }

    /// The pattern with its `*` and `~` replaced by the matched pieces.
    fn name(&self, pattern: &str) -> Option<String> {
        let mut pieces = self.pieces.iter();
        let mut name = Vec::new();
        for piece in pattern.split('.') {
            name.push(match piece {
                "*" => (*pieces.next()?).to_owned(),
                "~" => {
                    let number: usize = pieces.next()?.parse().ok()?;
                    self.largest()?.checked_sub(number)?.to_string()
                }
                _ => piece.to_owned(),
            });
        }
        Some(name.join("."))
    }

    /// The largest number in the place of the pattern's first `*`.
    fn largest(&self) -> Option<usize> {
        let (before, _) = self.rule.from.split_once('*')?;
        let numbers = self.files.names().filter_map(|name| {
            let rest = name.strip_prefix(self.prefix)?.strip_prefix(before)?;
            rest.split('.').next()?.parse().ok()
        });
        numbers.max()
    }
}

#[cfg(test)]
mod tests {
    use super::matched;

    #[test]
    fn a_star_matches_one_piece_of_a_name() {
        assert_eq!(matched("a.*.b.*", "a.1.b.weight"), Some(vec!["1", "weight"]));
        assert_eq!(matched("a.*.b.*", "a.1.c.weight"), None);
        assert_eq!(matched("a.*", "a.1.2"), None);
        assert_eq!(matched("a.*", "a"), None);
        assert_eq!(matched("pos_embed", "pos_embed"), Some(vec![]));
    }
}

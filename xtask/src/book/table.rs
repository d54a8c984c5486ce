//! The table of the book's content: words, figures, exercises and demos by chapter.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

const SOURCES: &str = "book/src";

/// The content of a chapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Content {
    /// Words outside code and display formulas.
    words: usize,
    /// Images.
    figures: usize,
    /// Exercises that check themselves.
    exercises: usize,
    /// Demos in the browser.
    demos: usize,
}

/// Prints the table, as Markdown.
pub fn print() -> Result<()> {
    print!("{}", table(Path::new(SOURCES))?);
    Ok(())
}

/// The table of the chapters in `SUMMARY.md`, by part, with the sum of every part.
fn table(sources: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = sources.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut table =
        "| chapter | words | figures | exercises | demos |\n|---|---|---|---|---|\n".to_owned();
    let mut part = ("Before the course", Content::default());
    let summary = read("SUMMARY.md")?;
    for line in summary.lines().skip(1) {
        if let Some(title) = line.strip_prefix("# ") {
            row(&mut table, &format!("**{}**", part.0), part.1);
            part = (title, Content::default());
        } else if let Some((title, name)) = link(line) {
            let content = Content::of(&read(name)?);
            part.1 = part.1.plus(content);
            row(&mut table, title, content);
        }
    }
    row(&mut table, &format!("**{}**", part.0), part.1);
    Ok(table)
}

fn row(table: &mut String, name: &str, content: Content) {
    let Content { words, figures, exercises, demos } = content;
    let _ = writeln!(table, "| {name} | {words} | {figures} | {exercises} | {demos} |");
}

/// Title and file of a line of the summary, as in `- [Title](file.md)`.
fn link(line: &str) -> Option<(&str, &str)> {
    let (title, rest) = line.split_once('[')?.1.split_once("](")?;
    Some((title, rest.split_once(')')?.0))
}

impl Content {
    /// Counts the content of a page.
    fn of(page: &str) -> Self {
        let (mut content, mut code, mut formula) = (Self::default(), false, false);
        for line in page.lines() {
            if line.trim_start().starts_with("```") {
                code = !code;
                continue;
            }
            if code {
                continue;
            }
            let fold = line.strip_prefix("<summary>").and_then(|text| text.chars().next());
            content.exercises += usize::from(fold.is_some_and(|first| first.is_ascii_digit()));
            content.demos += line.matches("data-demo=\"").count();
            content.figures += line.matches("![").count();
            // A display formula begins and ends with two dollars, often on one line.
            for (i, text) in line.split("$$").enumerate() {
                formula ^= i > 0;
                content.words += if formula { 0 } else { words(text) };
            }
        }
        content
    }

    fn plus(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            figures: self.figures + other.figures,
            exercises: self.exercises + other.exercises,
            demos: self.demos + other.demos,
        }
    }
}

/// Words of a text: what stands between blanks and has a letter, without tags and addresses.
fn words(text: &str) -> usize {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(['<', '(']) {
        let (before, from) = rest.split_at(begin);
        let end = if from.starts_with('<') { '>' } else { ')' };
        let skipped = from.starts_with('<') || before.ends_with(']');
        kept += before;
        if let Some(at) = from.find(end).filter(|_| skipped) {
            rest = &from[at + 1..];
        } else {
            kept.push(' ');
            rest = &from[1..];
        }
    }
    kept += rest;
    kept.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_figures_exercises_and_demos_are_counted() {
        let page = "# Two words\n\n![A figure](figures/a.svg) and $x$ [a link](b.md#c d).\n\n$$ x = y\n+ z $$\n\n\
                    ```rust\nnot these\n```\n<div class=\"demo\" data-demo=\"d1\"></div>\n\
                    <summary>1.2 An exercise (build)</summary>\n<summary>Solution</summary>\n";
        let content = Content::of(page);
        // Two words, A figure, and, $x$, a link, An exercise build, Solution.
        assert_eq!(content, Content { words: 12, figures: 1, exercises: 1, demos: 1 });
    }

    #[test]
    fn chapters_come_in_the_order_of_the_summary_with_the_sum_of_their_part() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../book/src");
        let table = table(Path::new(sources)).expect("the book's own pages");
        let place = |text: &str| table.find(text).unwrap_or_else(|| panic!("no {text}: {table}"));
        assert!(place("| Flow matching |") < place("| GRPO |"));
        assert!(place("| GRPO |") < place("| **The course** |"));
        assert!(place("| **The course** |") < place("| Rewards |"));
    }
}

//! Every prompt of the task in plain English, and which of them may be trained on.

use std::collections::BTreeSet;

use super::{Color, Entry, Excluded, Metadata, Relation, Shape, Tag};
use crate::prompts::{Prompt, PromptSet};

/// Pairs that no training prompt mentions: one for every shape.
pub const UNSEEN: [(Shape, Color); 4] =
    [(Shape::Circle, Color::Cyan), (Shape::Square, Color::Magenta), (Shape::Triangle, Color::Red), (Shape::Cross, Color::Green)];

/// A part of the task's prompts; the parts are disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// Held out: other combinations of what training prompts mention.
    Test,
    /// Held out: prompts with one of the [`UNSEEN`] pairs.
    Unseen,
}

/// One prompt in this many is held out for testing, by a hash of its text.
const HELD_OUT: u64 = 5;

/// All prompts of a split, kind by kind, always in the same order.
pub fn prompts(split: Split) -> PromptSet {
    let mut prompts = Vec::new();
    for tag in Tag::ALL {
        let (unseen, seen): (Vec<_>, Vec<_>) = all_of(tag).into_iter().partition(mentions_unseen);
        // By rank of the hash, not by its value: every kind gives the same share, and at least one.
        let mut ranked = seen;
        ranked.sort_by_key(|metadata| hash(&metadata.prompt));
        let held_out = ranked.len().div_ceil(HELD_OUT as usize);
        let chosen = match split {
            Split::Test => ranked.drain(..held_out).collect(),
            Split::Train => ranked.split_off(held_out),
            Split::Unseen => unseen,
        };
        prompts.extend(chosen.into_iter().map(Prompt::from));
    }
    PromptSet { name: format!("shapes-{split:?}").to_lowercase(), prompts }
}

/// Detailed captions, for pre-training alone: the training prompts of [`Tag::Position`] with every colour named, without the
/// [`UNSEEN`] pairs. A picture teaches more the more its caption says of it (arXiv 2403.03206, section 5.2.2).
pub fn detailed() -> PromptSet {
    let placed = prompts(Split::Train).prompts.into_iter().filter_map(|prompt| prompt.metadata);
    let placed = placed.filter(|metadata| metadata.tag == Tag::Position);
    let colored = placed.flat_map(|metadata| color_pairs().map(move |colors| in_colors(&metadata, colors)));
    let seen = colored.filter(|metadata| !mentions_unseen(metadata)).map(Prompt::from);
    PromptSet { name: "shapes-detailed".to_owned(), prompts: seen.collect() }
}

/// A prompt of [`Tag::Position`] with the colours of what is placed and of its anchor.
fn in_colors(metadata: &Metadata, (placed, anchor): (Color, Color)) -> Metadata {
    let [b, a] = &metadata.include[..] else { unreachable!("a position prompt has two objects") };
    let include = vec![Entry { color: Some(anchor), ..b.clone() }, Entry { color: Some(placed), ..a.clone() }];
    let relation = a.position.expect("the second object is placed").0;
    let [(a, placed), (b, anchor)] = [(a.class, placed), (b.class, anchor)].map(|(shape, color)| (shape.word(), color.word()));
    describe(Tag::Position, include, &format!("a {placed} {a} {} a {anchor} {b}", relation.words()))
}

/// Every word of every prompt, sorted.
pub fn vocabulary() -> Vec<String> {
    let prompts = Tag::ALL.into_iter().flat_map(all_of);
    let words: BTreeSet<String> =
        prompts.flat_map(|metadata| metadata.prompt.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    words.into_iter().collect()
}

fn mentions_unseen(metadata: &Metadata) -> bool {
    metadata.include.iter().any(|entry| entry.color.is_some_and(|color| UNSEEN.contains(&(entry.class, color))))
}

/// Every prompt of a kind.
fn all_of(tag: Tag) -> Vec<Metadata> {
    match tag {
        Tag::SingleObject => single_object(),
        Tag::TwoObject => {
            pairs().map(|(a, b)| describe(tag, vec![entry(a), entry(b)], &format!("a {} and a {}", a.word(), b.word()))).collect()
        }
        Tag::Counting => counting(),
        Tag::Colors => colors(),
        Tag::Position => position(),
        Tag::ColorAttr => color_attr(),
    }
}

fn single_object() -> Vec<Metadata> {
    let one = |shape: Shape| {
        ["a", "one", "a single"]
            .map(|article| describe(Tag::SingleObject, vec![entry(shape)], &format!("{article} {}", shape.word())))
    };
    Shape::ALL.into_iter().flat_map(one).collect()
}

fn counting() -> Vec<Metadata> {
    let mut all = Vec::new();
    for shape in Shape::ALL {
        for (count, word) in [(2, "two"), (3, "three"), (4, "four")] {
            for color in std::iter::once(None).chain(Color::ALL.map(Some)) {
                let adjective = color.map_or(String::new(), |color| format!("{} ", color.word()));
                let text = format!("{word} {adjective}{}", shape.plural());
                let mut metadata = describe(Tag::Counting, vec![Entry { count, color, ..entry(shape) }], &text);
                metadata.exclude = vec![Excluded { class: shape, count: count + 1 }];
                all.push(metadata);
            }
        }
    }
    all
}

fn colors() -> Vec<Metadata> {
    let one = |shape: Shape| {
        Color::ALL.map(|color| {
            let include = vec![Entry { color: Some(color), ..entry(shape) }];
            describe(Tag::Colors, include, &format!("a {} {}", color.word(), shape.word()))
        })
    };
    Shape::ALL.into_iter().flat_map(one).collect()
}

/// As in GenEval, the entry that is placed comes second and refers to the first by its index.
fn position() -> Vec<Metadata> {
    let placed = |(a, b): (Shape, Shape)| {
        Relation::ALL.map(|relation| {
            let include = vec![entry(b), Entry { position: Some((relation, 0)), ..entry(a) }];
            describe(Tag::Position, include, &format!("a {} {} a {}", a.word(), relation.words(), b.word()))
        })
    };
    pairs().flat_map(placed).collect()
}

fn color_attr() -> Vec<Metadata> {
    let mut all = Vec::new();
    for (a, b) in pairs() {
        for (color_a, color_b) in color_pairs() {
            let include = vec![Entry { color: Some(color_a), ..entry(a) }, Entry { color: Some(color_b), ..entry(b) }];
            let text = format!("a {} {} and a {} {}", color_a.word(), a.word(), color_b.word(), b.word());
            all.push(describe(Tag::ColorAttr, include, &text));
        }
    }
    all
}

/// Ordered pairs of different shapes.
fn pairs() -> impl Iterator<Item = (Shape, Shape)> {
    Shape::ALL.into_iter().flat_map(|a| Shape::ALL.into_iter().filter(move |&b| b != a).map(move |b| (a, b)))
}

/// Ordered pairs of different colours.
fn color_pairs() -> impl Iterator<Item = (Color, Color)> {
    Color::ALL.into_iter().flat_map(|a| Color::ALL.into_iter().filter(move |&b| b != a).map(move |b| (a, b)))
}

fn entry(class: Shape) -> Entry {
    Entry { class, count: 1, color: None, position: None }
}

fn describe(tag: Tag, include: Vec<Entry>, text: &str) -> Metadata {
    Metadata { tag, include, exclude: Vec::new(), prompt: format!("a photo of {text}") }
}

/// FNV-1a: the same on every machine and in every version of Rust.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

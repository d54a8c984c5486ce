//! Every prompt of the task in plain English, split into training, validation, test and unseen
//! prompts.

use std::{
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

use super::{Color, Entry, Excluded, Metadata, Relation, Shape, Tag};
use crate::{
    hash::fnv1a,
    prompts::{Prompt, PromptSet},
};

/// Pairs of shape and colour that no training prompt mentions, one per shape.
pub const UNSEEN: [(Shape, Color); 4] = [
    (Shape::Circle, Color::Cyan),
    (Shape::Square, Color::Magenta),
    (Shape::Triangle, Color::Red),
    (Shape::Cross, Color::Green),
];

/// A split of the task's prompts.
///
/// No prompt of [`Split::Train`] asks for a scene of [`Split::Validation`], [`Split::Test`] or
/// [`Split::Unseen`], in whatever words and order. Kinds of prompt with too few scenes are the
/// exception ([`Metadata::is_trained_on`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training prompts.
    Train,
    /// Held out, to choose checkpoints and settings.
    Validation,
    /// Held out; chooses nothing.
    Test,
    /// Held out: prompts with one of the [`UNSEEN`] pairs; chooses nothing.
    Unseen,
}

/// One scene in this many is held out for validation, and one for the test.
const HELD_OUT: usize = 6;
/// Smallest number of scenes of a kind from which some are held out.
const ENOUGH: usize = 20;

/// All prompts of a split, kind by kind, always in the same order.
///
/// Scenes are distributed by the rank of a hash. A kind of fewer than 20 scenes has none to spare:
/// training, validation and test all have all of its prompts.
pub fn prompts(split: Split) -> PromptSet {
    let of_kind = |tag: Tag| -> Vec<Metadata> {
        let (unseen, seen): (Vec<_>, Vec<_>) = all_of(tag).into_iter().partition(mentions_unseen);
        if split == Split::Unseen {
            return unseen;
        }
        let scenes = ranked_scenes(&seen);
        if scenes.len() < ENOUGH {
            return seen;
        }
        let held_out = scenes.len().div_ceil(HELD_OUT);
        let own = match split {
            Split::Validation => &scenes[..held_out],
            Split::Test => &scenes[held_out..2 * held_out],
            Split::Train | Split::Unseen => &scenes[2 * held_out..],
        };
        seen.into_iter().filter(|metadata| own.contains(&metadata.scene())).collect()
    };
    let prompts = Tag::ALL.into_iter().flat_map(of_kind).map(Prompt::from).collect();
    PromptSet { name: format!("shapes-{split:?}").to_lowercase(), prompts }
}

/// The distinct scenes of some prompts, by the rank of their hash.
fn ranked_scenes(prompts: &[Metadata]) -> Vec<String> {
    let scenes: BTreeSet<String> = prompts.iter().map(Metadata::scene).collect();
    let mut ranked: Vec<String> = scenes.into_iter().collect();
    ranked.sort_by_key(|scene| fnv1a(scene));
    ranked
}

/// The scenes of the training prompts.
static TRAINED: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let prompts = prompts(Split::Train).prompts;
    prompts.iter().filter_map(Metadata::of).map(|metadata| metadata.scene()).collect()
});

impl Metadata {
    /// A text that identifies the scene, whatever the words and order of the prompt:
    /// `a circle left of a square` and `a square right of a circle` are one scene.
    pub fn scene(&self) -> String {
        let named = |entry: &Entry| {
            let color = entry.color.map_or("any", Color::word);
            format!("{} {color} {}", entry.count, entry.class.word())
        };
        let anchors: Vec<usize> = self
            .include
            .iter()
            .filter_map(|entry| entry.position)
            .map(|(_, anchor)| anchor)
            .collect();
        let part = |(index, entry): (usize, &Entry)| match entry.position {
            // Left and above only: the other two relations are these read backwards.
            Some((relation, anchor)) => {
                let (here, there) =
                    (named(entry), self.include.get(anchor).map(named).unwrap_or_default());
                Some(match relation {
                    Relation::LeftOf | Relation::Above => {
                        format!("{here} {} {there}", relation.words())
                    }
                    Relation::RightOf | Relation::Below => {
                        format!("{there} {} {here}", relation.opposite().words())
                    }
                })
            }
            None if anchors.contains(&index) => None, // Named in the relation.
            None => Some(named(entry)),
        };
        let mut parts: Vec<String> = self.include.iter().enumerate().filter_map(part).collect();
        parts.sort_unstable();
        parts.join(", ")
    }

    /// Whether a prompt of [`Split::Train`] asks for the same scene.
    pub fn is_trained_on(&self) -> bool {
        TRAINED.contains(&self.scene())
    }
}

/// One caption in this many is held back from pre-training.
const HELD_BACK: usize = 5;

/// The captions of pre-training: four fifths of the texts of every kind, by the rank of a hash,
/// without the [`UNSEEN`] pairs.
///
/// They are not the training prompts: a base model has read captions of most scenes that
/// reinforcement learning holds out (as Stable Diffusion has read captions of GenEval's scenes),
/// but none with an unseen pair.
pub fn captions() -> PromptSet {
    let mut captions = Vec::new();
    for tag in Tag::ALL {
        let mut ranked: Vec<Metadata> =
            all_of(tag).into_iter().filter(|metadata| !mentions_unseen(metadata)).collect();
        ranked.sort_by_key(|metadata| fnv1a(&metadata.prompt));
        captions.extend(ranked.drain(ranked.len().div_ceil(HELD_BACK)..).map(Prompt::from));
    }
    PromptSet { name: "shapes-captions".to_owned(), prompts: captions }
}

/// Detailed captions: the [`captions`] of [`Tag::Position`] with every colour named, without the
/// [`UNSEEN`] pairs. An image teaches more if its caption says more about it (arXiv 2403.03206,
/// section 5.2.2).
pub fn detailed() -> PromptSet {
    let placed = captions().prompts.into_iter().filter_map(|prompt| Metadata::of(&prompt));
    let placed = placed.filter(|metadata| metadata.tag == Tag::Position);
    let colored =
        placed.flat_map(|metadata| color_pairs().map(move |colors| in_colors(&metadata, colors)));
    let seen = colored.filter(|metadata| !mentions_unseen(metadata)).map(Prompt::from);
    PromptSet { name: "shapes-detailed".to_owned(), prompts: seen.collect() }
}

/// Adds colours to a prompt of [`Tag::Position`], for the placed object and for its anchor.
fn in_colors(metadata: &Metadata, (placed, anchor): (Color, Color)) -> Metadata {
    let [b, a] = &metadata.include[..] else { unreachable!("a position prompt has two objects") };
    let include = vec![
        Entry { color: Some(anchor), ..b.clone() },
        Entry { color: Some(placed), ..a.clone() },
    ];
    let relation = a.position.expect("the second object is placed").0;
    let [(a, placed), (b, anchor)] =
        [(a.class, placed), (b.class, anchor)].map(|(shape, color)| (shape.word(), color.word()));
    describe(Tag::Position, include, &format!("a {placed} {a} {} a {anchor} {b}", relation.words()))
}

/// Every word of every prompt, sorted.
pub fn vocabulary() -> Vec<String> {
    let prompts = Tag::ALL.into_iter().flat_map(all_of);
    let words: BTreeSet<String> = prompts
        .flat_map(|metadata| metadata.prompt.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    words.into_iter().collect()
}

fn mentions_unseen(metadata: &Metadata) -> bool {
    metadata
        .include
        .iter()
        .any(|entry| entry.color.is_some_and(|color| UNSEEN.contains(&(entry.class, color))))
}

/// Every prompt of a kind.
fn all_of(tag: Tag) -> Vec<Metadata> {
    match tag {
        Tag::SingleObject => single_object(),
        Tag::TwoObject => pairs()
            .map(|(a, b)| {
                describe(
                    tag,
                    vec![entry(a), entry(b)],
                    &format!("a {} and a {}", a.word(), b.word()),
                )
            })
            .collect(),
        Tag::Counting => counting(),
        Tag::Colors => colors(),
        Tag::Position => position(),
        Tag::ColorAttr => color_attr(),
    }
}

fn single_object() -> Vec<Metadata> {
    let one = |shape: Shape| {
        ["a", "one", "a single"].map(|article| {
            describe(Tag::SingleObject, vec![entry(shape)], &format!("{article} {}", shape.word()))
        })
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
                let mut metadata =
                    describe(Tag::Counting, vec![Entry { count, color, ..entry(shape) }], &text);
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
            describe(
                Tag::Position,
                include,
                &format!("a {} {} a {}", a.word(), relation.words(), b.word()),
            )
        })
    };
    pairs().flat_map(placed).collect()
}

fn color_attr() -> Vec<Metadata> {
    let mut all = Vec::new();
    for (a, b) in pairs() {
        for (color_a, color_b) in color_pairs() {
            let include = vec![
                Entry { color: Some(color_a), ..entry(a) },
                Entry { color: Some(color_b), ..entry(b) },
            ];
            let text =
                format!("a {} {} and a {} {}", color_a.word(), a.word(), color_b.word(), b.word());
            all.push(describe(Tag::ColorAttr, include, &text));
        }
    }
    all
}

/// Ordered pairs of different shapes.
fn pairs() -> impl Iterator<Item = (Shape, Shape)> {
    Shape::ALL
        .into_iter()
        .flat_map(|a| Shape::ALL.into_iter().filter(move |&b| b != a).map(move |b| (a, b)))
}

/// Ordered pairs of different colours.
fn color_pairs() -> impl Iterator<Item = (Color, Color)> {
    Color::ALL
        .into_iter()
        .flat_map(|a| Color::ALL.into_iter().filter(move |&b| b != a).map(move |b| (a, b)))
}

fn entry(class: Shape) -> Entry {
    Entry { class, count: 1, color: None, position: None }
}

fn describe(tag: Tag, include: Vec<Entry>, text: &str) -> Metadata {
    Metadata { tag, include, exclude: Vec::new(), prompt: format!("a photo of {text}") }
}

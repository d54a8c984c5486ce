//! Categories of emoji.

/// The category of an emoji, the kind of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Activities.
    Activities,
    /// Animals and nature.
    Animals,
    /// Food and drink.
    Food,
    /// Objects.
    Objects,
    /// Smileys and emotion.
    Smileys,
    /// Travel and places.
    Travel,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 6] =
        [Self::Activities, Self::Animals, Self::Food, Self::Objects, Self::Smileys, Self::Travel];

    /// The name in prompts and in the file of captions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Activities => "activities",
            Self::Animals => "animals",
            Self::Food => "food",
            Self::Objects => "objects",
            Self::Smileys => "smileys",
            Self::Travel => "travel",
        }
    }

    /// The category of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.name() == name)
    }
}

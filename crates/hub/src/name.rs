//! The name of a model: `hub:OWNER/NAME`, perhaps with a file and a revision.

use std::fmt;

use crate::HubError;

/// The beginning of every name, which tells it from a path.
pub const PREFIX: &str = "hub:";

/// The branch of a name without a revision.
const MAIN: &str = "main";

/// The name of a model: `hub:OWNER/NAME[/FILE][@REVISION]`.
///
/// A revision is a branch, a tag or a commit. With a file, the name is that of this file, and the
/// configurations beside it come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    repository: String,
    file: Option<String>,
    revision: Option<String>,
}

impl Name {
    /// Parses a text that begins with [`PREFIX`]; `None` for any other text, which is a path.
    ///
    /// # Errors
    /// If the text after the prefix is no name.
    pub fn parse(text: &str) -> Result<Option<Self>, HubError> {
        let Some(rest) = text.strip_prefix(PREFIX) else { return Ok(None) };
        let bad = || HubError::Name { text: text.to_owned() };
        let (path, revision) = match rest.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (rest, None),
        };
        let mut pieces = path.splitn(3, '/');
        let (Some(owner), Some(model)) = (pieces.next(), pieces.next()) else { return Err(bad()) };
        let file = pieces.next();
        let all = [Some(owner), Some(model), file, revision].into_iter().flatten();
        if !all.into_iter().all(is_plain_path) || model.contains("--") || owner.contains("--") {
            return Err(bad());
        }
        Ok(Some(Self {
            repository: format!("{owner}/{model}"),
            file: file.map(str::to_owned),
            revision: revision.map(str::to_owned),
        }))
    }

    /// `OWNER/NAME`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The path of the file in the repository, if the name chooses one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The revision; `main` if the name has none.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The revision if it is a commit.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }

    /// The name with another revision.
    #[must_use]
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: Some(revision.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repository)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// Whether a text is the digest of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a relative path that cannot lead elsewhere, of characters that need no quotes
/// in an address.
pub(crate) fn is_plain_path(text: &str) -> bool {
    let plain = |piece: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=".contains(&byte);
        !piece.is_empty() && !piece.bytes().all(|byte| byte == b'.') && piece.bytes().all(allowed)
    };
    text.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_a_model_and_perhaps_a_file_and_a_revision() {
        let parse = |text: &str| Name::parse(text).expect("a name").expect("with the prefix");
        let name = parse("hub:stabilityai/stable-diffusion-3.5-medium");
        assert_eq!(name.repository(), "stabilityai/stable-diffusion-3.5-medium");
        assert_eq!((name.file(), name.revision(), name.commit()), (None, "main", None));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for text in [
            format!("hub:a/b/c/d.pt@{commit}"),
            "hub:a/b@refs/pr/1".to_owned(),
            "hub:a/b/c.safetensors".to_owned(),
        ] {
            assert_eq!(parse(&text).to_string(), text);
        }
        let name = parse(&format!("hub:a/b/c/d.pt@{commit}"));
        assert_eq!((name.file(), name.commit()), (Some("c/d.pt"), Some(commit)));
        assert_eq!(name.at("v2").to_string(), "hub:a/b/c/d.pt@v2");
        assert_eq!(Name::parse("models/sd3"), Ok(None), "a path");
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_name() {
        for text in [
            "hub:",
            "hub:gpt2",
            "hub:a/",
            "hub:/b",
            "hub:a/..",
            "hub:../b",
            "hub:a/b/../c",
            "hub:a/b@",
            "hub:a/b@../x",
            "hub:a b/c",
            "hub:a/b?c",
            "hub:a/b/",
            "hub:a/b//c",
            "hub:a--b/c",
            "hub:a/b\\c",
            "hub:a/b@c@d",
        ] {
            let error = Name::parse(text).expect_err(text).to_string();
            assert!(error.contains("hub:OWNER/NAME"), "{error}");
        }
    }
}

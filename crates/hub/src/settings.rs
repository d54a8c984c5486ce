//! Where the hub and the cache are, by the environment variables of `huggingface_hub`.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the hub, without a slash at its end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// The cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The token: `HF_TOKEN`, or the content of the file `HF_TOKEN_PATH`, or of `token` in
    /// `HF_HOME`.
    pub token: Option<Token>,
    /// Whether the network is left alone: `HF_HUB_OFFLINE`.
    pub offline: bool,
}

/// A token for private and gated models. Its `Debug` output hides the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the text of a token, without the white space around it; `None` if it is empty or has
    /// characters that a header cannot carry.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        visible.then(|| Self(text.to_owned()))
    }

    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";

impl Settings {
    /// The settings of this process's environment.
    pub fn from_environment() -> Self {
        Self::of(|name| env::var(name).ok())
    }

    /// The settings of an environment; empty variables count as unset.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let user = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let user = user.unwrap_or_else(|| PathBuf::from("."));
        let path = |name: &str| {
            let value = set(name)?;
            Some(value.strip_prefix("~/").map_or(PathBuf::from(&value), |rest| user.join(rest)))
        };
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let offline = set("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache: absolute(&cache.unwrap_or_else(|| home.join("hub"))),
            token: token.or_else(|| fs::read_to_string(file).ok()).and_then(|t| Token::new(&t)),
            offline: ["1", "true", "yes", "on"].contains(&offline.trim()),
        }
    }
}

/// The absolute form of a path; the path itself in a process without a current directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Settings {
        Settings::of(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn the_variables_are_those_of_huggingface() {
        let bare = of(&[("HOME", "/home/ada")]);
        assert_eq!(bare.cache, Path::new("/home/ada/.cache/huggingface/hub"));
        assert_eq!((bare.endpoint.as_str(), bare.offline), ("https://huggingface.co", false));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/c")]).cache, Path::new("/c/huggingface/hub"));
        assert_eq!(of(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).cache, Path::new("/h/hub"));
        let set = of(&[
            ("HOME", "/home/ada"),
            ("HF_HOME", "/h"),
            ("HF_HUB_CACHE", "~/models"),
            ("HF_ENDPOINT", "http://127.0.0.1:9/"),
            ("HF_HUB_OFFLINE", "TRUE"),
            ("HF_TOKEN", " hf_abc\n"),
        ]);
        assert_eq!(set.cache, Path::new("/home/ada/models"));
        assert_eq!((set.endpoint.as_str(), set.offline), ("http://127.0.0.1:9", true));
        assert_eq!(set.token, Token::new("hf_abc"));
        assert_eq!(format!("{:?}", set.token), "Some(Token(hidden))");
        assert!(!of(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_token_is_read_from_its_file_if_the_variable_is_not_set() {
        let directory =
            std::env::temp_dir().join(format!("flow-grpo-token-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("token"), "hf_home\n").expect("written");
        fs::write(directory.join("other"), "hf_other\n").expect("written");
        let home = directory.to_string_lossy().into_owned();
        let other = directory.join("other").to_string_lossy().into_owned();
        assert_eq!(of(&[("HF_HOME", &home)]).token, Token::new("hf_home"));
        let set = [("HF_HOME", home.as_str()), ("HF_TOKEN_PATH", &other)];
        assert_eq!(of(&set).token, Token::new("hf_other"));
        let set = [("HF_HOME", home.as_str()), ("HF_TOKEN", "hf_own")];
        assert_eq!(of(&set).token, Token::new("hf_own"));
        fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(of(&[("HF_HOME", &home)]).token, None);
    }
}

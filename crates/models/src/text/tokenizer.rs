//! The tokenizers of a model directory.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokenizers::{
    AddedToken, PostProcessorWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
    processors::roberta::RobertaProcessing,
};

use crate::storage::{ModelError, read_json};

/// Turns a prompt into the fixed number of token ids that its encoder reads.
#[derive(Clone, Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    pad: u32,
    length: usize,
    vocabulary: usize,
}

/// CLIP's tokens for the start and the end of a text.
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Pattern of CLIP's words, each of which is split further into tokens.
const CLIP_WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

impl PromptTokenizer {
    /// Opens the tokenizer in a directory, `tokenizer.json` or CLIP's `vocab.json` and
    /// `merges.txt`, for an encoder that knows `vocabulary` tokens. Every prompt is truncated or
    /// padded to `length` tokens.
    ///
    /// # Errors
    /// If neither is there, a file does not parse, or the padding token is unknown.
    pub fn open(directory: &Path, length: usize, vocabulary: usize) -> Result<Self, ModelError> {
        let file = directory.join("tokenizer.json");
        let mut tokenizer =
            unwound(|| if file.exists() { of_file(&file) } else { clip(directory) })
                .unwrap_or_else(|panic| {
                    Err(ModelError::unreadable(directory, format!("cannot be read: {panic}")))
                })?;
        // Overrides the padding and truncation of the file: `encode` makes exactly `length` tokens.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| ModelError::unreadable(directory, error))?;
        let special = SpecialTokens::read(directory)?;
        let bad = |reason: String| ModelError::unreadable(directory, reason);
        let Some(pad) = special.pad_token else {
            return Err(bad(
                "neither tokenizer_config.json nor special_tokens_map.json names a pad_token"
                    .to_owned(),
            ));
        };
        let pad = tokenizer.token_to_id(pad.content()).ok_or_else(|| {
            bad(format!("pad_token `{}` is not in the vocabulary", pad.content()))
        })?;
        Ok(Self { tokenizer, pad, length, vocabulary })
    }

    /// Number of tokens that every prompt is truncated or padded to.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Encodes a prompt as the fixed number of ids that the encoder reads; a long text is truncated
    /// before its end token.
    ///
    /// # Errors
    /// If the tokenizer fails on the text, or gives an id that the encoder does not know.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, ModelError> {
        let failed = |reason: String| ModelError::Prompt { prompt: prompt.to_owned(), reason };
        let ids = unwound(|| self.tokens(prompt))
            .map_err(failed)?
            .map_err(|error| failed(error.to_string()))?;
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            Some(id) => Err(failed(format!(
                "token {id}: wrong tokenizer, the encoder knows only {} tokens",
                self.vocabulary
            ))),
            None => Ok(ids),
        }
    }

    /// Whether a prompt has more tokens than the encoder reads.
    pub fn cuts(&self, prompt: &str) -> bool {
        unwound(|| self.tokenizer.encode(prompt, true))
            .is_ok_and(|ids| ids.is_ok_and(|ids| ids.len() > self.length))
    }

    fn tokens(&self, prompt: &str) -> tokenizers::Result<Vec<u32>> {
        let mut encoding = self.tokenizer.encode(prompt, false)?;
        // Start and end tokens count towards the length.
        let around = self.tokenizer.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        encoding.truncate(
            self.length.saturating_sub(around),
            0,
            tokenizers::TruncationDirection::Right,
        );
        let encoding = self.tokenizer.post_process(encoding, None, true)?;
        let mut ids = encoding.get_ids().to_vec();
        ids.resize(self.length, self.pad);
        Ok(ids)
    }
}

/// Runs `f` and returns the message if it panics: `tokenizers` panics on some damaged files instead
/// of failing.
fn unwound<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(_) => "the tokenizer is damaged".to_owned(),
    })
}

/// A token that a file adds to the vocabulary, with its id.
#[derive(Debug, Deserialize)]
struct AddedId {
    id: u32,
    content: String,
}

/// Reads `tokenizer.json`.
fn of_file(path: &Path) -> Result<Tokenizer, ModelError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<AddedId>,
    }
    let mut file: serde_json::Value = read_json(path)?;
    // The library numbers added tokens in the order of the file.
    if let Some(added) = file.get_mut("added_tokens").and_then(serde_json::Value::as_array_mut) {
        added.sort_by_key(|token| token["id"].as_u64());
    }
    let bad = |error: &dyn std::fmt::Display| ModelError::unreadable(path, error);
    let bytes = serde_json::to_vec(&file).map_err(|error| bad(&error))?;
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| bad(&error))?;
    let File { added_tokens } = serde_json::from_value(file).map_err(|error| bad(&error))?;
    check_ids(&tokenizer, &added_tokens, path)?;
    Ok(tokenizer)
}

/// # Errors
/// If an added token has another id than its file says, or shares an id: with holes in the
/// vocabulary, the library numbers added tokens differently.
fn check_ids(tokenizer: &Tokenizer, added: &[AddedId], path: &Path) -> Result<(), ModelError> {
    let advice = "the vocabulary has holes or its ids are not those of the tokens; save the \
                  tokenizer again with transformers";
    for AddedId { id, content } in added {
        let has = tokenizer.token_to_id(content);
        if has != Some(*id) {
            let has = has.map_or("none".to_owned(), |id| id.to_string());
            let reason = format!("the id of `{content}` is {id}, but read as {has}: {advice}");
            return Err(ModelError::unreadable(path, reason));
        }
    }
    let mut by_id = BTreeMap::new();
    for (token, id) in tokenizer.get_vocab(true) {
        if let Some(other) = by_id.insert(id, token.clone()) {
            let mut both = [other, token];
            both.sort_unstable();
            let reason = format!("`{}` and `{}` share the id {id}: {advice}", both[0], both[1]);
            return Err(ModelError::unreadable(path, reason));
        }
    }
    Ok(())
}

/// The files of CLIP's vocabulary.
fn clip_files(directory: &Path) -> Result<[PathBuf; 2], ModelError> {
    let files = ["vocab.json", "merges.txt"].map(|name| directory.join(name));
    if files.iter().all(|file| file.exists()) {
        return Ok(files);
    }
    let advice = if directory.join("spiece.model").exists() {
        "; spiece.model alone is not read, save the tokenizer again with transformers"
    } else {
        ""
    };
    let reason = format!("neither tokenizer.json nor vocab.json and merges.txt are there{advice}");
    Err(ModelError::unreadable(directory, reason))
}

/// Builds CLIP's tokenizer from `vocab.json` and `merges.txt`, as `transformers` does.
fn clip(directory: &Path) -> Result<Tokenizer, ModelError> {
    let [vocabulary, merges] = clip_files(directory)?;
    let bad = |error: tokenizers::Error| ModelError::unreadable(directory, error);
    let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy())
        .unk_token(END.to_owned())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .map_err(bad)?;
    let mut tokenizer = Tokenizer::new(model);
    let id = |token: &str| {
        let unknown = || {
            ModelError::unreadable(
                &vocabulary,
                format!("`{token}` is not in it: it is not CLIP's vocabulary"),
            )
        };
        tokenizer.token_to_id(token).map(|id| (token.to_owned(), id)).ok_or_else(unknown)
    };
    let (start, end) = (id(START)?, id(END)?);
    let one_space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(bad)?;
    let words = Split::new(
        SplitPattern::Regex(CLIP_WORDS.to_owned()),
        SplitDelimiterBehavior::Removed,
        true,
    )
    .map_err(bad)?;
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![
            NFC.into(),
            one_space.into(),
            Lowercase.into(),
        ])))
        .map_err(bad)?
        .with_pre_tokenizer(Some(PreTokenizers::new(vec![
            words.into(),
            ByteLevel::new(false, true, true).into(),
        ])))
        .with_post_processor(Some(PostProcessorWrapper::from(
            RobertaProcessing::new(end, start).trim_offsets(false).add_prefix_space(false),
        )));
    let names = |content: &str| AddedToken::from(content, true).normalized(true);
    let special = SpecialTokens::read(directory)?;
    let mut added: Vec<AddedToken> = [START, END].into_iter().map(names).collect();
    added.extend(special.pad_token.iter().map(|pad| names(pad.content())));
    added.extend(special.added_tokens_decoder.values().map(Added::token));
    tokenizer.add_special_tokens(added).map_err(bad)?;
    let decoder = special.added_tokens_decoder.into_iter();
    let ids: Vec<AddedId> =
        decoder.map(|(id, Added { content, .. })| AddedId { id, content }).collect();
    check_ids(&tokenizer, &ids, directory)?;
    Ok(tokenizer)
}

/// Special tokens, from the files beside a vocabulary.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecialTokens {
    pad_token: Option<Named>,
    /// By id, so that tokens are added in the order of their ids.
    added_tokens_decoder: BTreeMap<u32, Added>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Added { content: String },
}

impl Named {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Added { content } => content,
        }
    }
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own layout")]
struct Added {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    special: bool,
}

impl Added {
    fn token(&self) -> AddedToken {
        AddedToken::from(self.content.clone(), self.special)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized)
            .single_word(self.single_word)
    }
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, completed by `special_tokens_map.json`.
    fn read(directory: &Path) -> Result<Self, ModelError> {
        let mut all = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = directory.join(name);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let read: Self = serde_json::from_str(&text)
                .map_err(|error| ModelError::unreadable(&path, error))?;
            all.pad_token = all.pad_token.or(read.pad_token);
            all.added_tokens_decoder.extend(read.added_tokens_decoder);
        }
        Ok(all)
    }
}

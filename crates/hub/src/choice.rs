//! Chooses the files of a repository that are needed: configurations, tokenizers, and one set of
//! weights for each network.
//!
//! Left out are weights in other formats and precisions, and copies of the whole model in one file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{HubError, Name, Without, name::is_plain_path};

/// The index of a model of several networks.
pub(crate) const INDEX: &str = "model_index.json";

/// File stems of weights, in the order in which they are looked for.
const STEMS: [&str; 6] = [
    "model",
    "diffusion_pytorch_model",
    "open_clip_model",
    "open_clip_pytorch_model",
    "adapter_model",
    "pytorch_lora_weights",
];

/// File stems of weights as PyTorch's pickles.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "open_clip_pytorch_model.bin"];

/// The parts of a model, by its index: names of directories.
#[derive(Debug)]
pub(crate) struct Index {
    parts: BTreeSet<String>,
}

impl Index {
    /// Parses `model_index.json`. A part is an entry with a class.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let there = |value: &Value| {
            value.as_array().is_some_and(|parts| parts.iter().any(|part| !part.is_null()))
        };
        let parts = entries.into_iter().filter(|(_, value)| there(value)).map(|(name, _)| name);
        Ok(Self { parts: parts.filter(|name| is_plain_path(name)).collect() })
    }
}

/// The files of a repository.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    name: &'a Name,
    files: BTreeSet<String>,
    /// The parts, if it is a model of several networks.
    pub index: Option<Index>,
}

impl<'a> Listing<'a> {
    /// The listing of files; names that could lead out of a directory are dropped.
    pub fn new(name: &'a Name, files: Vec<String>) -> Self {
        let files = files.into_iter().filter(|file| is_plain_path(file)).collect();
        Self { name, files, index: None }
    }

    /// Whether there is a file of this path.
    pub fn has(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    /// The files that are needed, all configurations before all weights.
    ///
    /// # Errors
    /// If there are no weights, or several and none that is meant.
    pub fn chosen(&self, without: Without<'_>) -> Result<Vec<String>, HubError> {
        let (mut small, mut weights) = (Vec::new(), Vec::new());
        if let Some(index) = &self.index {
            for part in index.parts.iter().filter(|part| !without.contains(&part.as_str())) {
                let directory = format!("{part}/");
                small.extend(self.configurations(&directory));
                weights.extend(self.weights(&directory).unwrap_or_default());
            }
        } else if let Some(file) = self.name.file() {
            if !self.has(file) {
                let (repository, file) = (self.name.repository().to_owned(), file.to_owned());
                return Err(HubError::NoFile { repository, file });
            }
            let directory = &file[..file.rfind('/').map_or(0, |slash| slash + 1)];
            small.extend(self.configurations(directory).into_iter().filter(|name| name != file));
            weights.push(file.to_owned());
        } else {
            small.extend(self.configurations(""));
            weights =
                self.weights("").or_else(|| self.pickle()).map_or_else(|| self.other(), Ok)?;
        }
        small.extend(weights);
        Ok(small)
    }

    /// Whether the files that are needed are all there, as far as the listing of a cache can tell.
    pub fn is_whole(&self, without: Without<'_>) -> bool {
        let Some(index) = &self.index else {
            return self.chosen(without).is_ok_and(|files| all_shards(&files));
        };
        let mut parts = index.parts.iter().filter(|part| !without.contains(&part.as_str()));
        parts.all(|part| {
            let directory = format!("{part}/");
            let network = self.has(&format!("{directory}config.json"));
            let weights = self.weights(&directory).is_some_and(|files| all_shards(&files));
            !self.configurations(&directory).is_empty() && (weights || !network)
        })
    }

    /// The names of the files in a directory, without it.
    fn inside(&self, directory: &str) -> impl Iterator<Item = &str> {
        let names = self.files.iter().filter_map(move |file| file.strip_prefix(directory));
        names.filter(|name| !name.contains('/'))
    }

    /// Configurations and the files of a tokenizer in a directory.
    fn configurations(&self, directory: &str) -> Vec<String> {
        let is_one = |name: &&str| {
            let index = name.ends_with(".index.json") || name.ends_with(".index.fp16.json");
            (name.rsplit('.').next() == Some("json") && !index) || *name == "merges.txt"
        };
        self.inside(directory).filter(is_one).map(|name| format!("{directory}{name}")).collect()
    }

    /// The weights in a directory under the first known stem: one file, or the shards of an index;
    /// those in 16 bits if there are no others.
    fn weights(&self, directory: &str) -> Option<Vec<String>> {
        let has = |name: &str| self.has(&format!("{directory}{name}"));
        STEMS.into_iter().find_map(|stem| {
            let sets = [
                (format!("{stem}.safetensors"), None),
                (format!("{stem}.safetensors.index.json"), Some(format!("{stem}-"))),
                (format!("{stem}.fp16.safetensors"), None),
                (format!("{stem}.safetensors.index.fp16.json"), Some(format!("{stem}.fp16-"))),
            ];
            let (first, shards) = sets.into_iter().find(|(name, _)| has(name))?;
            let is_shard = |name: &&str| {
                let own = shards.as_ref().is_some_and(|prefix| name.starts_with(prefix));
                own && name.ends_with(".safetensors")
            };
            let shards = self.inside(directory).filter(is_shard);
            let names = shards.chain([first.as_str()]);
            Some(names.map(|name| format!("{directory}{name}")).collect())
        })
    }

    /// The weights as a pickle of a known name.
    fn pickle(&self) -> Option<Vec<String>> {
        let safetensors = self.inside("").any(|name| name.ends_with(".safetensors"));
        let found = PICKLES.into_iter().find(|name| self.has(name))?;
        (!safetensors).then(|| vec![found.to_owned()])
    }

    /// The only file of weights of another name.
    fn other(&self) -> Result<Vec<String>, HubError> {
        let of = |endings: &[&str]| -> Vec<&str> {
            let is_one = |name: &&str| endings.iter().any(|ending| name.ends_with(ending));
            self.inside("").filter(is_one).collect()
        };
        let mut found = of(&[".safetensors"]);
        if found.is_empty() {
            found = of(&[".pt", ".pth", ".bin", ".ckpt"]);
        }
        let refused = |reason: String| {
            Err(HubError::Choice { repository: self.name.repository().to_owned(), reason })
        };
        match found[..] {
            [only] => Ok(vec![only.to_owned()]),
            [] => refused("has no weights as safetensors or PyTorch's pickles".to_owned()),
            _ => refused(format!(
                "has several files of weights: {}; name one, as {}/{}",
                found.join(", "),
                self.name,
                found[0]
            )),
        }
    }
}

/// Whether every set of shards, `NAME-00001-of-00002.safetensors`, is whole.
fn all_shards(files: &[String]) -> bool {
    let mut sets: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    let mut indexed = false;
    for file in files {
        indexed |= file.ends_with("index.json") || file.ends_with("index.fp16.json");
        let numbers = file.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-"));
        let Some((stem, count)) = numbers.and_then(|(stem, of)| Some((stem, of.parse().ok()?)))
        else {
            continue;
        };
        let prefix = stem.rsplit_once('-').map_or(stem, |(prefix, _)| prefix);
        *sets.entry((prefix, count)).or_default() += 1;
    }
    sets.iter().all(|((_, count), found)| count == found) && (!indexed || !sets.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, files: &[&str], index: Option<&str>) -> Result<Vec<String>, HubError> {
        let name = Name::parse(name).expect("a name").expect("with its prefix");
        let mut listing =
            Listing::new(&name, files.iter().map(|file| (*file).to_owned()).collect());
        listing.index = index.map(|text| Index::parse(text).expect("an index"));
        listing.chosen(&["text_encoder_3"])
    }

    const SD3: &str = r#"{"_class_name": "StableDiffusion3Pipeline",
        "image_encoder": [null, null], "transformer": ["diffusers", "SD3Transformer2DModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_3": ["transformers", "T5EncoderModel"], "text_encoder": ["a", "b"]}"#;

    #[test]
    fn a_model_of_several_networks_needs_one_set_of_weights_for_each() {
        let files = [
            "README.md",
            "model_index.json",
            "sd3.5_medium.safetensors",
            "mmditx.png",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "transformer/diffusion_pytorch_model.fp16.safetensors",
            "text_encoders/clip_g.safetensors",
            "text_encoder/config.json",
            "text_encoder/model.safetensors.index.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.fp16-00001-of-00002.safetensors",
            "text_encoder/model.onnx",
            "text_encoder/pytorch_model.bin",
            "text_encoder_3/config.json",
            "text_encoder_3/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "tokenizer/special_tokens_map.json",
            "../evil/config.json",
        ];
        assert_eq!(
            chosen("hub:a/b", &files, Some(SD3)).expect("a choice"),
            [
                "text_encoder/config.json",
                "tokenizer/merges.txt",
                "tokenizer/special_tokens_map.json",
                "tokenizer/vocab.json",
                "transformer/config.json",
                "text_encoder/model-00001-of-00002.safetensors",
                "text_encoder/model-00002-of-00002.safetensors",
                "text_encoder/model.safetensors.index.json",
                "transformer/diffusion_pytorch_model.safetensors",
            ]
        );
    }

    #[test]
    fn a_single_network_needs_one_set_of_weights() {
        let of = |files: &[&str]| chosen("hub:a/b", files, None);
        let clip = [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "merges.txt",
            "onnx/model.onnx",
            "flax_model.msgpack",
        ];
        assert_eq!(of(&clip).expect("weights"), ["config.json", "merges.txt", "model.safetensors"]);
        assert_eq!(
            of(&["a.json", "pytorch_model.bin"]).expect("weights"),
            ["a.json", "pytorch_model.bin"]
        );
        assert_eq!(of(&["head.pth", "README.md"]).expect("weights"), ["head.pth"]);
        let hps = ["HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt"];
        let several = of(&hps).expect_err("two").to_string();
        assert!(several.contains("hub:a/b/HPS_v2.1_compressed.pt"), "{several}");
        assert!(of(&["README.md"]).expect_err("none").to_string().contains("has no weights"));
        let one = chosen("hub:a/b/HPS_v2.1_compressed.pt", &hps, None);
        assert_eq!(one.expect("named"), ["HPS_v2.1_compressed.pt"]);
        let none = chosen("hub:a/b/c.pt", &hps, None).expect_err("no such file").to_string();
        assert_eq!(none, "a/b has no file c.pt");
    }

    #[test]
    fn a_set_of_shards_is_whole_with_all_of_them() {
        let whole = |files: &[&str]| {
            all_shards(&files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
        };
        assert!(whole(&["a.safetensors"]));
        assert!(whole(&["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]));
        assert!(!whole(&["m-00001-of-00002.safetensors"]));
        assert!(!whole(&["model.safetensors.index.json"]));
    }
}

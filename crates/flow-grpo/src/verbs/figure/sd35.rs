//! Stable Diffusion 3.5 Medium: a denoising step with its shapes, the weights of its parts, and the
//! memory of a training run. Every number comes from the configurations of the networks, the preset
//! and the estimate that the program makes before a run.

mod step;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, FloatDType};
use files::write_atomically;
use models::{
    LoraConfig,
    sd3::random::{Sizes, Tensors},
};
use pipelines::footprint;
use run::bars::{Bar, Bars, bars};

pub use step::step;

use crate::{
    backend::Plain,
    config,
    machine::needs::{Batches, Needs, Network, Place, page_of_gpu},
    train::{config::TrainConfig, presets::TRAIN_PRESETS, tuning::Tuning},
};

/// The preset that the figures are about.
const PRESET: &str = "sd35m-ocr-1gpu";
/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;
/// A GPU of 80 GiB that computes in 16 bits.
const GPU: Place =
    Place { on_cpu: false, page: page_of_gpu(80 << 30), workers: 1, precision: FloatDType::BF16 };

/// The model and the settings of the figures.
struct Setting {
    sizes: Sizes,
    config: TrainConfig,
    lora: LoraConfig,
    /// `[C, H, W]` of a latent.
    latent: [usize; 3],
    /// `[3, H, W]` of an image.
    pixels: [usize; 3],
    /// Tokens of T5, and of the whole text.
    tokens: [usize; 2],
}

impl Setting {
    fn new() -> Result<Self> {
        let sizes = Sizes::sd35_medium();
        let table = config::preset(&TRAIN_PRESETS, PRESET)?.table(&TRAIN_PRESETS);
        // A run must name its model; nothing is read here.
        let config: TrainConfig = table.try_into().context(PRESET)?;
        let model = config.model.as_ref().context("the preset has a model")?;
        let side = model.resolution;
        let of_t5 = model.max_sequence_length;
        let Tuning::Lora(lora) = config.tuning.clone() else {
            anyhow::bail!("{PRESET} trains an adapter")
        };
        ensure!(sizes.t5.is_some(), "Stable Diffusion 3.5 reads with T5");
        let scale = sizes.vae.scale();
        let latent = [sizes.vae.latent_channels, side / scale, side / scale];
        let tokens = [of_t5, sizes.clip[0].max_position_embeddings + of_t5];
        Ok(Self { sizes, config, lora, latent, pixels: [3, side, side], tokens })
    }

    /// Names and shapes of a part's tensors.
    fn tensors(&self, part: &str) -> Result<Tensors> {
        let parts = self.sizes.tensors::<Plain>(&Device::<Plain>::default());
        let found = parts.into_iter().find(|(name, _)| *name == part);
        Ok(found.with_context(|| format!("the model has no {part}"))?.1)
    }

    /// Number of parameters of the adapter: rank times (inputs + outputs) for every layer.
    fn adapter(&self) -> Result<usize> {
        let layer = |(name, shape): &(String, Vec<usize>)| {
            let path = name.strip_suffix(".weight")?;
            (shape.len() == 2 && self.lora.adapts(path)).then(|| shape.iter().sum::<usize>())
        };
        Ok(self.lora.rank * self.tensors("transformer")?.iter().filter_map(layer).sum::<usize>())
    }

    /// The estimate for micro-batches of this many transitions.
    fn needs(&self, micro_batch: usize, recompute: bool) -> Result<[Needs; 3]> {
        let grpo = &self.config.grpo;
        let (rows, guided) =
            (grpo.groups * grpo.group_size, 1 + usize::from(grpo.rollout.guidance != 1.0));
        let batches = Batches {
            key: "grpo.micro_batch",
            micro_batch,
            rollout_batch: micro_batch,
            rows: guided,
        };
        let estimate = |trained, frozen, decoder_bytes| {
            let sizes = pipelines::Sizes {
                latent_shape: self.latent,
                pixels: self.pixels,
                text_tokens: self.tokens[1],
                precision: GPU.precision,
                on_cpu: GPU.on_cpu,
                decoder_bytes,
            };
            let footprint = footprint(&self.sizes.transformer, sizes, recompute);
            let network = Network { footprint, latent_shape: self.latent, trained, frozen };
            // Those of an update, with the empty one.
            let conditions = (grpo.groups + 1) as u64 * network.footprint.condition_bytes;
            // Trajectories stay on the host, so the device holds the final latents alone.
            Needs { conditions, ..Needs::new(GPU, network, rows, batches) }
        };
        let (adapter, frozen) = (self.adapter()?, 2 * count(&self.tensors("transformer")?) as u64);
        let decoder = 4 * count(&self.tensors("vae")?) as u64;
        Ok([
            estimate(adapter, frozen, decoder),
            estimate(0, frozen, 0),
            estimate(0, frozen, decoder),
        ])
    }

    /// The parts of the estimate in GiB, in the order of [`PARTS`].
    fn parts(&self, micro_batch: usize, recompute: bool) -> Result<Vec<f64>> {
        let [all, transformer, frozen] = self.needs(micro_batch, recompute)?;
        let [program, weights, samples, _, conditions, work, pages] =
            all.parts().map(|(bytes, _)| bytes);
        let bytes = [
            transformer.weights,
            frozen.weights - transformer.weights,
            weights - frozen.weights,
            samples,
            conditions,
            work,
            program,
            pages,
        ];
        Ok(bytes.map(|bytes| bytes as f64 / GIB).into())
    }
}

/// The parts of a run's memory.
const PARTS: [&str; 8] = [
    "transformer",
    "autoencoder",
    "adapter and optimiser",
    "latents",
    "conditions",
    "activations",
    "program",
    "pages that are not full",
];

/// Number of values.
fn count(tensors: &Tensors) -> usize {
    tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Draws the estimated memory of a run for several micro-batches.
pub fn memory(path: &Path) -> Result<()> {
    let setting = Setting::new()?;
    let checkpointed = [1, 2, 4, 8, 16].map(|batch| (batch, true));
    let whole = [1, 2].map(|batch| (batch, false));
    let bar = |(micro_batch, recompute): (usize, bool)| -> Result<Bar> {
        let how = if recompute { "checkpointing" } else { "everything kept" };
        let name =
            format!("{micro_batch} transitions, {how}").replace("1 transitions", "1 transition");
        Ok(Bar { name, parts: setting.parts(micro_batch, recompute)? })
    };
    let svg = bars(&Bars {
        title: "estimated memory of a run on a GPU, by transitions in a micro-batch".to_owned(),
        parts: PARTS.map(str::to_owned).into(),
        bars: checkpointed.into_iter().chain(whole).map(bar).collect::<Result<_>>()?,
        marks: [24.0, 48.0, 80.0].map(|gib: f64| (gib, format!("{gib} GiB"))).into(),
        axis: "GiB".to_owned(),
    })?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// The networks, by the names of their directories.
const NETWORKS: [(&str, &str); 5] = [
    ("transformer", "transformer (MMDiT-X)"),
    ("text_encoder", "CLIP-L"),
    ("text_encoder_2", "CLIP-G"),
    ("text_encoder_3", "T5"),
    ("vae", "autoencoder"),
];
/// The kinds of weights, with what names their tensors have; the last kind is all the rest.
const KINDS: [(&str, &[&str]); 5] = [
    ("attention", &[".attn.", ".attn2.", "self_attn", "SelfAttention"]),
    ("MLP", &[".ff.", ".ff_context.", ".mlp.", "DenseReluDense"]),
    ("shift, scale and gate", &["norm1.linear", "norm1_context.linear", "norm_out.linear"]),
    (
        "tables of words and positions",
        &["pos_embed.pos_embed", "token_embedding", "position_embedding", "shared."],
    ),
    ("everything else", &[]),
];

/// Draws the sizes of the weights of all parts.
pub fn weights(path: &Path) -> Result<()> {
    let setting = Setting::new()?;
    let bar = |(directory, name): (&str, &str)| -> Result<Bar> {
        let mut parts = vec![0.0; KINDS.len()];
        for (tensor, shape) in setting.tensors(directory)? {
            let kind =
                KINDS.iter().position(|(_, names)| names.iter().any(|name| tensor.contains(name)));
            parts[kind.unwrap_or(KINDS.len() - 1)] +=
                2.0 * shape.iter().product::<usize>() as f64 / GIB;
        }
        Ok(Bar { name: name.to_owned(), parts })
    };
    let svg = bars(&Bars {
        title: "weights of the networks in 16 bits".to_owned(),
        parts: KINDS.map(|(name, _)| name.to_owned()).into(),
        bars: NETWORKS.into_iter().map(bar).collect::<Result<_>>()?,
        marks: Vec::new(),
        axis: "GiB".to_owned(),
    })?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table of memory in the book's reference page.
    #[test]
    fn the_books_table_of_memory_is_the_estimate() {
        let setting = Setting::new().expect("the preset is whole");
        let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../book/src/sd3.md");
        let book = std::fs::read_to_string(book).expect("the book's page");
        for recompute in [true, false] {
            let total = |batch| {
                let parts = setting.parts(batch, recompute).expect("an estimate");
                format!(" {:.0} |", parts.iter().sum::<f64>())
            };
            let row: String = [1, 2, 4, 8, 16].map(total).concat();
            assert!(book.contains(&row), "no row of the table has{row}");
        }
    }

    #[test]
    fn the_parts_have_as_many_parameters_as_the_published_classes() {
        // diffusers 0.42.1 and transformers 5.24.0 with the published sizes, and SD3's table of positions.
        let setting = Setting::new().expect("the preset is whole");
        let counts = NETWORKS.map(|(part, _)| count(&setting.tensors(part).expect("a part")));
        assert_eq!(counts, [2_469_663_936, 123_650_304, 694_659_840, 4_762_310_656, 83_819_683]);
        assert_eq!(counts.iter().sum::<usize>(), 8_134_104_419);
    }

    #[test]
    fn the_adapter_has_its_rank_times_inputs_and_outputs_of_191_matrices() {
        // 8 in each of 24 blocks; the last block has no output of the text.
        let adapter = Setting::new().and_then(|setting| setting.adapter()).expect("a number");
        assert_eq!(adapter, 32 * 191 * (1536 + 1536));
    }

    #[test]
    fn every_large_tensor_of_a_transformer_has_a_kind() {
        let setting = Setting::new().expect("the preset is whole");
        for (part, _) in &NETWORKS[..4] {
            for (tensor, shape) in setting.tensors(part).expect("a part") {
                let named =
                    KINDS.iter().any(|(_, names)| names.iter().any(|name| tensor.contains(name)));
                let small = shape.iter().product::<usize>() < 10_000_000;
                assert!(named || small, "{part}: {tensor} {shape:?}");
            }
        }
    }
}

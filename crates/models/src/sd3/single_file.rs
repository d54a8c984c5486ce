//! Translates the single-file layout of Stability and ComfyUI into the tensor names of diffusers.

use std::path::Path;

use super::Sd3Error;
use crate::tensor_files::{Stored, TensorFiles};

/// The networks of a single file, under the tensor names of diffusers.
pub(crate) struct SingleFile {
    pub(crate) transformer: TensorFiles,
    /// The autoencoder, if the file has one.
    pub(crate) vae: Option<TensorFiles>,
}

const TRANSFORMER: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
/// A tensor that every transformer of the SD3 family has.
const WITNESS: &str = "joint_blocks.0.x_block.attn.qkv.weight";

/// Opens a single file and reads only its header. Text encoders in it are ignored.
///
/// # Errors
/// If the file cannot be read or holds no transformer of the SD3 family.
pub(crate) fn open(path: &Path) -> Result<SingleFile, Sd3Error> {
    let files = TensorFiles::open_file(path)?;
    let prefix = match (files.shape(&format!("{TRANSFORMER}{WITNESS}")), files.shape(WITNESS)) {
        (Some(_), _) => TRANSFORMER,
        (None, Some(_)) => "",
        (None, None) => {
            let reason = format!(
                "holds no transformer of SD3 in the single-file layout: there is no {WITNESS}"
            );
            return Err(Sd3Error::wrong_kind(path, &reason));
        }
    };
    let transformer = renamed(&files, prefix, transformer);
    let has_vae = files.names().any(|name| name.starts_with(VAE));
    Ok(SingleFile { transformer, vae: has_vae.then(|| renamed(&files, VAE, vae)) })
}

/// Upper bound on the number of resolutions of an autoencoder.
const MOST_LEVELS: usize = 32;

type Renamed = Vec<(String, Stored)>;

/// Renames the tensors whose names begin with `prefix` by `rule`. A tensor that the rule does not
/// know keeps its name without the prefix.
fn renamed(
    files: &TensorFiles,
    prefix: &str,
    rule: fn(&TensorFiles, &str, &str, Stored) -> Option<Renamed>,
) -> TensorFiles {
    let mut result = TensorFiles::default();
    for name in files.names() {
        let Some(own) = name.strip_prefix(prefix) else { continue };
        let stored = files.stored(name).expect("it was just named");
        let tensors = rule(files, prefix, own, stored.clone())
            .unwrap_or_else(|| vec![(own.to_owned(), stored)]);
        for (name, stored) in tensors {
            result.insert(name, stored);
        }
    }
    result
}

/// Splits a tensor's name into the name of its layer and `weight` or `bias`.
fn split_kind(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
}

fn transformer(files: &TensorFiles, prefix: &str, name: &str, stored: Stored) -> Option<Renamed> {
    if name == "pos_embed" {
        return Some(vec![("pos_embed.pos_embed".to_owned(), stored)]);
    }
    let (layer, kind) = split_kind(name)?;
    let one = |layer: &str, stored: Stored| Some(vec![(format!("{layer}.{kind}"), stored)]);
    match layer {
        "x_embedder.proj" => return one("pos_embed.proj", stored),
        "t_embedder.mlp.0" => return one("time_text_embed.timestep_embedder.linear_1", stored),
        "t_embedder.mlp.2" => return one("time_text_embed.timestep_embedder.linear_2", stored),
        "y_embedder.mlp.0" => return one("time_text_embed.text_embedder.linear_1", stored),
        "y_embedder.mlp.2" => return one("time_text_embed.text_embedder.linear_2", stored),
        "context_embedder" => return one("context_embedder", stored),
        "final_layer.linear" => return one("proj_out", stored),
        // Stability stores shift before scale, diffusers scale before shift.
        "final_layer.adaLN_modulation.1" => return one("norm_out.linear", stored.halves_swapped()),
        _ => {}
    }
    let (index, layer) = layer.strip_prefix("joint_blocks.")?.split_once('.')?;
    let block = format!("transformer_blocks.{index}");
    let (stream, layer) = layer.split_once('.')?;
    let of_image = match stream {
        "x_block" => true,
        "context_block" => false,
        _ => return None,
    };
    let pick = |of_the_image: &'static str, of_the_text: &'static str| {
        if of_image { of_the_image } else { of_the_text }
    };
    if let Some(attention) = ["attn", "attn2"]
        .into_iter()
        .find(|attention| layer.strip_prefix(attention).is_some_and(|rest| rest.starts_with('.')))
    {
        let at =
            |name: &str, stored: Stored| (format!("{block}.{attention}.{name}.{kind}"), stored);
        return match &layer[attention.len() + 1..] {
            "qkv" => {
                let names = if of_image {
                    ["to_q", "to_k", "to_v"]
                } else {
                    ["add_q_proj", "add_k_proj", "add_v_proj"]
                };
                Some(
                    names
                        .into_iter()
                        .enumerate()
                        .map(|(part, name)| at(name, stored.nth_part(part, 3)))
                        .collect(),
                )
            }
            "proj" => Some(vec![at(pick("to_out.0", "to_add_out"), stored)]),
            "ln_q" => Some(vec![at(pick("norm_q", "norm_added_q"), stored)]),
            "ln_k" => Some(vec![at(pick("norm_k", "norm_added_k"), stored)]),
            _ => None,
        };
    }
    match layer {
        "mlp.fc1" => one(&format!("{block}.{}.net.0.proj", pick("ff", "ff_context")), stored),
        "mlp.fc2" => one(&format!("{block}.{}.net.2", pick("ff", "ff_context")), stored),
        "adaLN_modulation.1" if of_image => one(&format!("{block}.norm1.linear"), stored),
        "adaLN_modulation.1" => {
            // In the last block the text has only shift and scale, and its attention has no output
            // layer.
            let goes_on = files
                .shape(&format!("{prefix}joint_blocks.{index}.context_block.attn.proj.weight"))
                .is_some();
            one(
                &format!("{block}.norm1_context.linear"),
                if goes_on { stored } else { stored.halves_swapped() },
            )
        }
        _ => None,
    }
}

fn vae(files: &TensorFiles, prefix: &str, name: &str, stored: Stored) -> Option<Renamed> {
    let (layer, kind) = split_kind(name)?;
    let (half, layer) = layer.split_once('.')?;
    let one = |layer: &str, stored: Stored| Some(vec![(format!("{half}.{layer}.{kind}"), stored)]);
    let residual = |layer: &str| layer.replace("nin_shortcut", "conv_shortcut");
    match layer {
        "conv_in" | "conv_out" => return one(layer, stored),
        "norm_out" => return one("conv_norm_out", stored),
        "mid.attn_1.norm" => return one("mid_block.attentions.0.group_norm", stored),
        _ => {}
    }
    if let Some(name) = layer.strip_prefix("mid.attn_1.") {
        let name = match name {
            "q" => "to_q",
            "k" => "to_k",
            "v" => "to_v",
            "proj_out" => "to_out.0",
            _ => return None,
        };
        // 1x1 convolutions, which are linear layers.
        let shape = stored.shape.iter().take(2).copied().collect();
        return one(&format!("mid_block.attentions.0.{name}"), stored.reshaped(shape));
    }
    if let Some((block, layer)) =
        layer.strip_prefix("mid.block_").and_then(|rest| rest.split_once('.'))
    {
        let index = block.parse::<usize>().ok()?.checked_sub(1)?;
        return one(&format!("mid_block.resnets.{index}.{}", residual(layer)), stored);
    }
    let (direction, rest) = layer.split_once('.')?;
    let (level, rest) = rest.split_once('.')?;
    let level: usize = level.parse().ok()?;
    // The two layouts number the decoder's levels in opposite order.
    let level = match direction {
        "down" => level,
        "up" => {
            let is_there = |level: usize| {
                files.shape(&format!("{prefix}decoder.up.{level}.block.0.norm1.weight")).is_some()
            };
            (level..MOST_LEVELS).take_while(|level| is_there(*level)).count().checked_sub(1)?
        }
        _ => return None,
    };
    match rest {
        "downsample.conv" | "upsample.conv" => {
            one(&format!("{direction}_blocks.{level}.{direction}samplers.0.conv"), stored)
        }
        _ => one(
            &format!(
                "{direction}_blocks.{level}.resnets.{}",
                residual(rest.strip_prefix("block.")?)
            ),
            stored,
        ),
    }
}

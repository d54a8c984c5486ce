//! The single-file layout of Black Forest Labs and ComfyUI, in the tensor names of diffusers.

use std::path::Path;

use crate::{
    directory::SingleFile,
    storage::{
        ModelError, TensorFiles,
        layout::{Rule, keep, renamed, split, swap},
    },
    vae,
};

const TRANSFORMER: &str = "model.diffusion_model.";
const VAE: &str = "vae.";
/// A tensor that every transformer of FLUX.1 has.
const WITNESS: &str = "double_blocks.0.img_attn.qkv.weight";

/// Opens a single file and reads only its header. Text encoders in it are ignored.
///
/// # Errors
/// If the file cannot be read or holds no transformer of FLUX.1.
pub(super) fn open(path: &Path) -> Result<SingleFile, ModelError> {
    let files = TensorFiles::open_file(path)?;
    let prefix = match (files.shape(&format!("{TRANSFORMER}{WITNESS}")), files.shape(WITNESS)) {
        (Some(_), _) => TRANSFORMER,
        (None, Some(_)) => "",
        (None, None) => {
            let reason = format!(
                "holds no transformer of FLUX.1 in the single-file layout: there is no {WITNESS}"
            );
            return Err(ModelError::wrong_kind(path, reason));
        }
    };
    let transformer = renamed(&files, prefix, TRANSFORMER_RULES);
    Ok(SingleFile { transformer, vae: vae::in_single_file(&files, VAE) })
}

const OF_IMAGE: &[(&str, usize)] = &[("to_q", 1), ("to_k", 1), ("to_v", 1)];
const OF_TEXT: &[(&str, usize)] = &[("add_q_proj", 1), ("add_k_proj", 1), ("add_v_proj", 1)];
/// Query, key, value and the MLP's input of a single block are one layer.
const OF_BOTH: &[(&str, usize)] =
    &[("attn.to_q", 1), ("attn.to_k", 1), ("attn.to_v", 1), ("proj_mlp", 4)];

#[rustfmt::skip]
const TRANSFORMER_RULES: &[Rule] = &[
    keep("img_in.*", "x_embedder.*"),
    keep("txt_in.*", "context_embedder.*"),
    keep("time_in.in_layer.*", "time_text_embed.timestep_embedder.linear_1.*"),
    keep("time_in.out_layer.*", "time_text_embed.timestep_embedder.linear_2.*"),
    keep("guidance_in.in_layer.*", "time_text_embed.guidance_embedder.linear_1.*"),
    keep("guidance_in.out_layer.*", "time_text_embed.guidance_embedder.linear_2.*"),
    keep("vector_in.in_layer.*", "time_text_embed.text_embedder.linear_1.*"),
    keep("vector_in.out_layer.*", "time_text_embed.text_embedder.linear_2.*"),
    keep("final_layer.linear.*", "proj_out.*"),
    swap("final_layer.adaLN_modulation.1.*", "norm_out.linear.*"),
    keep("double_blocks.*.img_mod.lin.*", "transformer_blocks.*.norm1.linear.*"),
    split("double_blocks.*.img_attn.qkv.*", "transformer_blocks.*.attn.@.*", OF_IMAGE),
    keep("double_blocks.*.img_attn.proj.*", "transformer_blocks.*.attn.to_out.0.*"),
    keep("double_blocks.*.img_attn.norm.query_norm.scale", "transformer_blocks.*.attn.norm_q.weight"),
    keep("double_blocks.*.img_attn.norm.key_norm.scale", "transformer_blocks.*.attn.norm_k.weight"),
    keep("double_blocks.*.img_mlp.0.*", "transformer_blocks.*.ff.net.0.proj.*"),
    keep("double_blocks.*.img_mlp.2.*", "transformer_blocks.*.ff.net.2.*"),
    keep("double_blocks.*.txt_mod.lin.*", "transformer_blocks.*.norm1_context.linear.*"),
    split("double_blocks.*.txt_attn.qkv.*", "transformer_blocks.*.attn.@.*", OF_TEXT),
    keep("double_blocks.*.txt_attn.proj.*", "transformer_blocks.*.attn.to_add_out.*"),
    keep("double_blocks.*.txt_attn.norm.query_norm.scale", "transformer_blocks.*.attn.norm_added_q.weight"),
    keep("double_blocks.*.txt_attn.norm.key_norm.scale", "transformer_blocks.*.attn.norm_added_k.weight"),
    keep("double_blocks.*.txt_mlp.0.*", "transformer_blocks.*.ff_context.net.0.proj.*"),
    keep("double_blocks.*.txt_mlp.2.*", "transformer_blocks.*.ff_context.net.2.*"),
    keep("single_blocks.*.modulation.lin.*", "single_transformer_blocks.*.norm.linear.*"),
    split("single_blocks.*.linear1.*", "single_transformer_blocks.*.@.*", OF_BOTH),
    keep("single_blocks.*.linear2.*", "single_transformer_blocks.*.proj_out.*"),
    keep("single_blocks.*.norm.query_norm.scale", "single_transformer_blocks.*.attn.norm_q.weight"),
    keep("single_blocks.*.norm.key_norm.scale", "single_transformer_blocks.*.attn.norm_k.weight"),
];

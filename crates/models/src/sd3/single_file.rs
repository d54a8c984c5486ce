//! The single-file layout of Stability and ComfyUI, in the tensor names of diffusers.

use std::path::Path;

use crate::{
    directory::SingleFile,
    storage::{
        ModelError, TensorFiles,
        layout::{Change, Rule, keep, renamed, split, swap},
    },
    vae,
};

const TRANSFORMER: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
/// A tensor that every transformer of the SD3 family has.
const WITNESS: &str = "joint_blocks.0.x_block.attn.qkv.weight";

/// Opens a single file and reads only its header. Text encoders in it are ignored.
///
/// # Errors
/// If the file cannot be read or holds no transformer of the SD3 family.
pub(super) fn open(path: &Path) -> Result<SingleFile, ModelError> {
    let files = TensorFiles::open_file(path)?;
    let prefix = match (files.shape(&format!("{TRANSFORMER}{WITNESS}")), files.shape(WITNESS)) {
        (Some(_), _) => TRANSFORMER,
        (None, Some(_)) => "",
        (None, None) => {
            let reason = format!(
                "holds no transformer of SD3 in the single-file layout: there is no {WITNESS}"
            );
            return Err(ModelError::wrong_kind(path, reason));
        }
    };
    let transformer = renamed(&files, prefix, TRANSFORMER_RULES);
    Ok(SingleFile { transformer, vae: vae::in_single_file(&files, VAE) })
}

const OF_IMAGE: &[(&str, usize)] = &[("to_q", 1), ("to_k", 1), ("to_v", 1)];
const OF_TEXT: &[(&str, usize)] = &[("add_q_proj", 1), ("add_k_proj", 1), ("add_v_proj", 1)];
/// The output of the text's attention, which the last block does not have.
const TEXT_OUTPUT: &str = "joint_blocks.*.context_block.attn.proj.weight";

#[rustfmt::skip]
const TRANSFORMER_RULES: &[Rule] = &[
    keep("pos_embed", "pos_embed.pos_embed"),
    keep("x_embedder.proj.*", "pos_embed.proj.*"),
    keep("t_embedder.mlp.0.*", "time_text_embed.timestep_embedder.linear_1.*"),
    keep("t_embedder.mlp.2.*", "time_text_embed.timestep_embedder.linear_2.*"),
    keep("y_embedder.mlp.0.*", "time_text_embed.text_embedder.linear_1.*"),
    keep("y_embedder.mlp.2.*", "time_text_embed.text_embedder.linear_2.*"),
    keep("final_layer.linear.*", "proj_out.*"),
    swap("final_layer.adaLN_modulation.1.*", "norm_out.linear.*"),
    split("joint_blocks.*.x_block.attn.qkv.*", "transformer_blocks.*.attn.@.*", OF_IMAGE),
    keep("joint_blocks.*.x_block.attn.proj.*", "transformer_blocks.*.attn.to_out.0.*"),
    keep("joint_blocks.*.x_block.attn.ln_q.*", "transformer_blocks.*.attn.norm_q.*"),
    keep("joint_blocks.*.x_block.attn.ln_k.*", "transformer_blocks.*.attn.norm_k.*"),
    split("joint_blocks.*.x_block.attn2.qkv.*", "transformer_blocks.*.attn2.@.*", OF_IMAGE),
    keep("joint_blocks.*.x_block.attn2.proj.*", "transformer_blocks.*.attn2.to_out.0.*"),
    keep("joint_blocks.*.x_block.attn2.ln_q.*", "transformer_blocks.*.attn2.norm_q.*"),
    keep("joint_blocks.*.x_block.attn2.ln_k.*", "transformer_blocks.*.attn2.norm_k.*"),
    keep("joint_blocks.*.x_block.mlp.fc1.*", "transformer_blocks.*.ff.net.0.proj.*"),
    keep("joint_blocks.*.x_block.mlp.fc2.*", "transformer_blocks.*.ff.net.2.*"),
    keep("joint_blocks.*.x_block.adaLN_modulation.1.*", "transformer_blocks.*.norm1.linear.*"),
    split("joint_blocks.*.context_block.attn.qkv.*", "transformer_blocks.*.attn.@.*", OF_TEXT),
    keep("joint_blocks.*.context_block.attn.proj.*", "transformer_blocks.*.attn.to_add_out.*"),
    keep("joint_blocks.*.context_block.attn.ln_q.*", "transformer_blocks.*.attn.norm_added_q.*"),
    keep("joint_blocks.*.context_block.attn.ln_k.*", "transformer_blocks.*.attn.norm_added_k.*"),
    keep("joint_blocks.*.context_block.mlp.fc1.*", "transformer_blocks.*.ff_context.net.0.proj.*"),
    keep("joint_blocks.*.context_block.mlp.fc2.*", "transformer_blocks.*.ff_context.net.2.*"),
    // In the last block the text has only shift and scale.
    Rule {
        from: "joint_blocks.*.context_block.adaLN_modulation.1.*",
        to: "transformer_blocks.*.norm1_context.linear.*",
        change: Change::SwapHalvesWithout(TEXT_OUTPUT),
    },
];

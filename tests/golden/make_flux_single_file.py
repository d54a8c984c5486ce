#!/usr/bin/env python3
"""Writes the transformer and the VAE of a diffusers FLUX directory as one file with the key names of Black Forest Labs' and ComfyUI's checkpoints.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 safetensors==0.8.0 accelerate==1.15.0
    python make_flux_single_file.py MODEL_DIRECTORY OUTPUT_FILE

The script is the inverse of diffusers' converters (`convert_flux_transformer_checkpoint_to_diffusers`, `convert_ldm_vae_checkpoint`) and checks that they give
back every tensor of the directory, exactly.
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

from make_sd3_single_file import VAE as LDM_VAE, stored, swap_halves, vae_to_single

TRANSFORMER, VAE = "model.diffusion_model.", "vae."


def transformer_to_single(tensors, config):
    """The transformer under the checkpoints' names."""
    left, out = dict(tensors), {}

    def move(new, old, change=lambda tensor: tensor):
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in left:
                out[f"{new}.{kind}"] = change(left.pop(f"{old}.{kind}"))

    def joined(new, old, names):
        for kind in ("weight", "bias"):
            out[f"{new}.{kind}"] = torch.cat([left.pop(f"{old}.{name}.{kind}") for name in names])

    def scale(new, old):
        out[f"{new}.scale"] = left.pop(f"{old}.weight")

    move("img_in", "x_embedder")
    move("txt_in", "context_embedder")
    for new, old in (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder"), ("vector_in", "text_embedder")):
        move(f"{new}.in_layer", f"time_text_embed.{old}.linear_1")
        move(f"{new}.out_layer", f"time_text_embed.{old}.linear_2")
    for i in range(config["num_layers"]):
        new, old = f"double_blocks.{i}", f"transformer_blocks.{i}"
        streams = (
            ("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", "norm_q", "norm_k", "ff"),
            ("txt", "norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "norm_added_q", "norm_added_k", "ff_context"),
        )
        for stream, norm, qkv, proj, norm_q, norm_k, feed in streams:
            move(f"{new}.{stream}_mod.lin", f"{old}.{norm}.linear")
            joined(f"{new}.{stream}_attn.qkv", f"{old}.attn", qkv)
            move(f"{new}.{stream}_attn.proj", f"{old}.attn.{proj}")
            scale(f"{new}.{stream}_attn.norm.query_norm", f"{old}.attn.{norm_q}")
            scale(f"{new}.{stream}_attn.norm.key_norm", f"{old}.attn.{norm_k}")
            move(f"{new}.{stream}_mlp.0", f"{old}.{feed}.net.0.proj")
            move(f"{new}.{stream}_mlp.2", f"{old}.{feed}.net.2")
    for i in range(config["num_single_layers"]):
        new, old = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        move(f"{new}.modulation.lin", f"{old}.norm.linear")
        joined(f"{new}.linear1", old, ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
        move(f"{new}.linear2", f"{old}.proj_out")
        scale(f"{new}.norm.query_norm", f"{old}.attn.norm_q")
        scale(f"{new}.norm.key_norm", f"{old}.attn.norm_k")
    move("final_layer.linear", "proj_out")
    move("final_layer.adaLN_modulation.1", "norm_out.linear", swap_halves)
    assert not left, sorted(left)
    return out


def check(what, converted, expected):
    assert converted.keys() == expected.keys(), (what, sorted(converted.keys() ^ expected.keys()))
    for name, tensor in expected.items():
        assert torch.equal(converted[name], tensor), (what, name)
    print(f"{what}: {len(expected)} tensors come back exactly")


def main():
    directory, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    configs = {name: json.loads((directory / name / "config.json").read_text()) for name in ("transformer", "vae")}
    tensors = {name: stored(directory / name) for name in ("transformer", "vae")}
    single = {TRANSFORMER + key: tensor for key, tensor in transformer_to_single(tensors["transformer"], configs["transformer"]).items()}
    single |= {VAE + key: tensor for key, tensor in vae_to_single(tensors["vae"], configs["vae"]).items()}
    save_file({key: tensor.clone().contiguous() for key, tensor in single.items()}, output)

    back = load_file(output)
    # The converter assumes the published width (proj_mlp is 4 x 3072 there): tell it this one's.
    d = tensors["transformer"]["x_embedder.weight"].shape[0]
    flux = {key: tensor for key, tensor in back.items() if key.startswith(TRANSFORMER)}
    import diffusers.loaders.single_file_utils as utils
    import inspect

    source = inspect.getsource(utils.convert_flux_transformer_checkpoint_to_diffusers).replace("inner_dim = 3072", f"inner_dim = {d}")
    scope = dict(vars(utils))
    exec(source, scope)
    converted = scope["convert_flux_transformer_checkpoint_to_diffusers"](dict(flux))
    check("transformer", converted, tensors["transformer"])
    ldm = {LDM_VAE + key[len(VAE):]: tensor for key, tensor in back.items() if key.startswith(VAE)}
    check("vae", convert_ldm_vae_checkpoint(ldm, AutoencoderKL.from_config(configs["vae"]).config), tensors["vae"])


if __name__ == "__main__":
    main()

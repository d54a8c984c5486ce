#!/usr/bin/env python3
"""Writes the transformer and the VAE of a diffusers SD3 directory as one file with the key names of Stability's and ComfyUI's checkpoints.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 safetensors==0.8.0 accelerate==1.15.0
    python make_sd3_single_file.py MODEL_DIRECTORY OUTPUT_FILE [bf16]

Without `bf16` each tensor keeps the type in which the directory stores it. The script is the inverse of diffusers' converters
(`convert_sd3_transformer_checkpoint_to_diffusers`, `convert_ldm_vae_checkpoint`) and checks that they give back every tensor of the directory,
exactly (with `bf16`: every tensor of the directory rounded to bf16).
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, convert_sd3_transformer_checkpoint_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TRANSFORMER, VAE = "model.diffusion_model.", "first_stage_model."


def stored(directory):
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def swap_halves(tensor):
    """diffusers keeps (scale, shift) where the checkpoints keep (shift, scale)."""
    return torch.cat(list(tensor.chunk(2, dim=0))[::-1])


def transformer_to_single(tensors, config):
    """The transformer under the checkpoints' names."""
    left, out = dict(tensors), {}
    last = config["num_layers"] - 1

    def move(new, old, change=lambda tensor: tensor):
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in left:
                out[f"{new}.{kind}"] = change(left.pop(f"{old}.{kind}"))

    def attention(new, old, q, k, v, proj, norm_q, norm_k):
        for kind in ("weight", "bias"):
            out[f"{new}.qkv.{kind}"] = torch.cat([left.pop(f"{old}.{name}.{kind}") for name in (q, k, v)])
        move(f"{new}.proj", f"{old}.{proj}")
        move(f"{new}.ln_q", f"{old}.{norm_q}")
        move(f"{new}.ln_k", f"{old}.{norm_k}")

    out["pos_embed"] = left.pop("pos_embed.pos_embed")
    move("x_embedder.proj", "pos_embed.proj")
    move("context_embedder", "context_embedder")
    for new, old in (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder")):
        move(f"{new}.mlp.0", f"time_text_embed.{old}.linear_1")
        move(f"{new}.mlp.2", f"time_text_embed.{old}.linear_2")
    for i in range(last + 1):
        old, x, context = f"transformer_blocks.{i}", f"joint_blocks.{i}.x_block", f"joint_blocks.{i}.context_block"
        image = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
        attention(f"{x}.attn", f"{old}.attn", *image)
        text = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k")
        attention(f"{context}.attn", f"{old}.attn", *text)
        if i in config["dual_attention_layers"]:
            attention(f"{x}.attn2", f"{old}.attn2", *image)
        move(f"{x}.adaLN_modulation.1", f"{old}.norm1.linear")
        move(f"{context}.adaLN_modulation.1", f"{old}.norm1_context.linear", swap_halves if i == last else lambda tensor: tensor)
        for new, feed in ((x, "ff"), (context, "ff_context")):
            move(f"{new}.mlp.fc1", f"{old}.{feed}.net.0.proj")
            move(f"{new}.mlp.fc2", f"{old}.{feed}.net.2")
    move("final_layer.linear", "proj_out")
    move("final_layer.adaLN_modulation.1", "norm_out.linear", swap_halves)
    assert not left, sorted(left)
    return out


def vae_to_single(tensors, config):
    """The VAE under the checkpoints' names: decoder blocks counted from the end, attention projections as 1x1 convolutions."""
    left, out = dict(tensors), {}
    blocks = len(config["block_out_channels"])

    def move(new, old, change=lambda tensor: tensor):
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in left:
                out[f"{new}.{kind}"] = change(left.pop(f"{old}.{kind}"))

    def resnet(new, old):
        for name in ("norm1", "conv1", "norm2", "conv2"):
            move(f"{new}.{name}", f"{old}.{name}")
        move(f"{new}.nin_shortcut", f"{old}.conv_shortcut")

    def as_convolution(tensor):
        return tensor[:, :, None, None] if tensor.ndim == 2 else tensor

    for side in ("encoder", "decoder"):
        move(f"{side}.conv_in", f"{side}.conv_in")
        move(f"{side}.norm_out", f"{side}.conv_norm_out")
        move(f"{side}.conv_out", f"{side}.conv_out")
        for i in range(2):
            resnet(f"{side}.mid.block_{i + 1}", f"{side}.mid_block.resnets.{i}")
        new, old = f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0"
        move(f"{new}.norm", f"{old}.group_norm")
        for theirs, ours in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            move(f"{new}.{theirs}", f"{old}.{ours}", as_convolution)
    for i in range(blocks):
        for j in range(config["layers_per_block"]):
            resnet(f"encoder.down.{i}.block.{j}", f"encoder.down_blocks.{i}.resnets.{j}")
        move(f"encoder.down.{i}.downsample.conv", f"encoder.down_blocks.{i}.downsamplers.0.conv")
        new = f"decoder.up.{blocks - 1 - i}"
        for j in range(config["layers_per_block"] + 1):
            resnet(f"{new}.block.{j}", f"decoder.up_blocks.{i}.resnets.{j}")
        move(f"{new}.upsample.conv", f"decoder.up_blocks.{i}.upsamplers.0.conv")
    for name in ("quant_conv", "post_quant_conv"):
        move(name, name)
    assert not left, sorted(left)
    return out


def check_equal(what, converted, expected):
    assert converted.keys() == expected.keys(), (what, sorted(converted.keys() ^ expected.keys()))
    for name, tensor in expected.items():
        assert converted[name].dtype == tensor.dtype and torch.equal(converted[name], tensor), (what, name)
    print(f"{what}: {len(expected)} tensors come back exactly")


def main():
    directory, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    bf16 = sys.argv[3:] == ["bf16"]
    configs, tensors = {}, {}
    for name in ("transformer", "vae"):
        configs[name] = json.loads((directory / name / "config.json").read_text())
        tensors[name] = {key: tensor.to(torch.bfloat16) if bf16 else tensor for key, tensor in stored(directory / name).items()}

    single = {TRANSFORMER + key: tensor for key, tensor in transformer_to_single(tensors["transformer"], configs["transformer"]).items()}
    single |= {VAE + key: tensor for key, tensor in vae_to_single(tensors["vae"], configs["vae"]).items()}
    save_file({key: tensor.clone().contiguous() for key, tensor in single.items()}, output)

    def part(prefix):
        return {key: tensor for key, tensor in load_file(output).items() if key.startswith(prefix)}

    check_equal("transformer", convert_sd3_transformer_checkpoint_to_diffusers(part(TRANSFORMER)), tensors["transformer"])
    check_equal("vae", convert_ldm_vae_checkpoint(part(VAE), configs["vae"]), tensors["vae"])

    # And through the public entry point.
    for name, model in (("transformer", SD3Transformer2DModel), ("vae", AutoencoderKL)):
        loaded = model.from_single_file(str(output), config=str(directory), subfolder=name, torch_dtype=torch.float32).state_dict()
        check_equal(f"{name}, from_single_file", loaded, {key: tensor.float() for key, tensor in tensors[name].items()})
    print(f"{len(single)} tensors, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()

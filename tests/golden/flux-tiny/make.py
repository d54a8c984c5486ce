#!/usr/bin/env python3
"""Makes a small random FLUX.1-dev style pipeline in the diffusers layout, and what diffusers computes with it.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 tokenizers==0.23.3 safetensors==0.8.0 sentencepiece==0.2.3 protobuf==7.36.2
    python make.py TOKENIZER_DIRECTORY OUTPUT_DIRECTORY

TOKENIZER_DIRECTORY is a tiny SD3 pipeline of these goldens: `tokenizer/` (CLIP) and `tokenizer_3/` (T5) are copied from it. Everything is in f32 on
the CPU; a second pass in f64 says how far f32 is from it. Weights, biases and the scales of norms are all random: nothing is at its default.
"""

import json
import pathlib
import shutil
import sys

import diffusers
import numpy
import tokenizers as tokenizers_library
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

SEED = 20261125
DATE = "2026-11-25"
VOCABULARY, T5_VOCABULARY = 2014, 2000
POOLED, JOINT = 20, 24
LATENT_CHANNELS = 4
VAE_FACTOR = 2
GUIDANCE, STEPS = 3.5, 4
MAX_SEQUENCE_LENGTH = 24
PROMPTS = ["a red cube left of two blue balls", "Three green cats and one yellow house!"]
# key, height, width of the picture, length of the text, times, guidances
TRANSFORMER_CASES = [
    ("wide", 24, 40, 20, [0.8125, 0.14453125], [3.5, 3.5]),
    ("tall", 40, 16, 9, [1.0, 0.390625], [1.0, 7.0]),
]
PIPELINE_CASES = [("wide", 24, 40), ("tall", 48, 32)]
SHIFT_TABLE_TOKENS, SHIFT_TABLE_STEPS = [60, 96, 256, 1024, 2304, 4096, 8100], [4, 6, 10, 28]
GRADIENTS = [
    "x_embedder.weight",
    "context_embedder.weight",
    "time_text_embed.timestep_embedder.linear_1.weight",
    "time_text_embed.guidance_embedder.linear_2.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "transformer_blocks.0.norm1.linear.weight",
    "transformer_blocks.0.attn.to_q.weight",
    "transformer_blocks.0.attn.norm_k.weight",
    "transformer_blocks.1.norm1_context.linear.bias",
    "transformer_blocks.1.attn.add_k_proj.weight",
    "transformer_blocks.1.attn.norm_added_q.weight",
    "transformer_blocks.1.attn.to_add_out.weight",
    "transformer_blocks.1.ff_context.net.2.weight",
    "single_transformer_blocks.0.norm.linear.weight",
    "single_transformer_blocks.0.attn.to_v.weight",
    "single_transformer_blocks.1.proj_mlp.weight",
    "single_transformer_blocks.2.proj_out.weight",
    "norm_out.linear.weight",
    "proj_out.weight",
]


def randomise(model, generator, gains):
    """Normal weights of std gain / sqrt(fan in), biases of 0.2, scales of norms around 1 by 0.3. `gains`: (part of a name, gain)."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = next((gain for part, gain in gains if part in name), 1.0)
        if parameter.ndim == 1:
            scale = name.endswith("weight")  # only norms have vectors for weights
            noise = 1 + 0.3 * noise if scale else 0.2 * gain * noise
        elif "embedding" in name or "shared" in name or "relative_attention_bias" in name:
            noise = gain * noise
        else:
            noise = gain * noise / parameter[0].numel() ** 0.5
        parameter.data.copy_(noise)
    return model.eval()


def make_transformer(generator):
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=JOINT,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    gains = [("embedder.linear_1.weight", 1.4), ("norm1", 0.7), ("norm_out", 0.7), ("norm.linear", 0.7)]
    # Small numbers before some norms, so that their eps is seen.
    gains += [("x_embedder", 0.05), ("context_embedder", 0.05)]
    gains += [("transformer_blocks.0.attn.to_q", 0.03), ("transformer_blocks.0.attn.add_k_proj", 0.03), ("transformer_blocks.1.attn.to_k", 0.03)]
    return randomise(transformer, generator, gains)


def make_pipeline(tokenizers, directory, generator):
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=POOLED,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=16,
            # As in FLUX.1-dev, where these are not the ids of the tokenizer: 2 means "the largest id of the row".
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=T5_VOCABULARY,
            d_model=JOINT,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 16],
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = make_transformer(generator)
    randomise(clip, generator, [("token_embedding", 0.8), ("position_embedding", 0.4)])
    randomise(t5, generator, [("SelfAttention.q", 0.5), ("relative_attention_bias", 0.7)])
    randomise(vae, generator, [("conv_out", 0.7)])
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    pipe = FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip,
        tokenizer=AutoTokenizer.from_pretrained(tokenizers / "tokenizer"),
        text_encoder_2=t5,
        tokenizer_2=AutoTokenizer.from_pretrained(tokenizers / "tokenizer_3"),
        transformer=transformer,
    )
    pipe.save_pretrained(directory)

    # The tokenizers byte for byte, under the class names that FLUX.1-dev has.
    for ours, theirs in {"tokenizer": "tokenizer", "tokenizer_2": "tokenizer_3"}.items():
        shutil.rmtree(directory / ours)
        shutil.copytree(tokenizers / theirs, directory / ours)
        for path in [directory / ours, *(directory / ours).iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    index_file = directory / "model_index.json"
    index = json.loads(index_file.read_text())
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    index["tokenizer_2"] = ["transformers", "T5TokenizerFast"]
    index_file.write_text(json.dumps(index, indent=2) + "\n")

    # The names of FLUX.1-dev's files: CLIP's with their prefix, which transformers 5 may leave out.
    file = directory / "text_encoder" / "model.safetensors"
    weights = {name if name.startswith("text_model.") else f"text_model.{name}": array for name, array in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    assert "shared.weight" in load_file(directory / "text_encoder_2" / "model.safetensors")


def image_ids(height, width):
    """(0, row, column) of each 2x2 patch of the latents of a picture."""
    rows, columns = height // (2 * VAE_FACTOR), width // (2 * VAE_FACTOR)
    return torch.tensor([[0.0, row, column] for row in range(rows) for column in range(columns)])


def run_transformer(transformer, given, dtype, parts):
    transformer = transformer.to(dtype)
    given = {name: array.to(dtype) for name, array in given.items()}
    leaves = [given[name].requires_grad_(True) for name in ("hidden_states", "encoder_hidden_states", "pooled_projections")]
    seen, handles = {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            outputs = {name: output} if torch.is_tensor(output) else {f"{name}.{index}": array for index, array in enumerate(output)}
            seen.update({key: array.detach() for key, array in outputs.items()})

        return hook

    if parts:
        modules = dict(transformer.named_modules())
        names = ["time_text_embed", "x_embedder", "context_embedder", "pos_embed", "transformer_blocks.0.attn", "norm_out"]
        names += [f"transformer_blocks.{index}" for index in range(2)] + [f"single_transformer_blocks.{index}" for index in range(3)]
        handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    output = transformer(**{name: array for name, array in given.items() if name != "cotangent"}, return_dict=False)[0]
    for handle in handles:
        handle.remove()
    parameters = dict(transformer.named_parameters())
    wanted = leaves + [parameters[name] for name in GRADIENTS]
    gradients = torch.autograd.grad((output * given["cotangent"]).sum(), wanted)
    names = ["hidden_states", "encoder_hidden_states", "pooled_projections"] + GRADIENTS
    out = {"output": output.detach()} | {f"part.{name}": array for name, array in seen.items()}
    return out | {f"grad.{name}": gradient for name, gradient in zip(names, gradients)}


def transformer_goldens(transformer, generator, report):
    arrays = {}
    for key, height, width, text, times, guidances in TRANSFORMER_CASES:
        ids = image_ids(height, width)
        given = {
            "hidden_states": torch.randn(2, len(ids), 4 * LATENT_CHANNELS, generator=generator),
            "encoder_hidden_states": torch.randn(2, text, JOINT, generator=generator),
            "pooled_projections": torch.randn(2, POOLED, generator=generator),
            "timestep": torch.tensor(times),
            "guidance": torch.tensor(guidances),
            "img_ids": ids,
            "txt_ids": torch.zeros(text, 3),
            "cotangent": torch.randn(2, len(ids), 4 * LATENT_CHANNELS, generator=generator),
        }
        out = run_transformer(transformer, given, torch.float32, parts=key == "tall")
        exact = run_transformer(transformer, given, torch.float64, parts=key == "tall")
        transformer.to(torch.float32)
        for name, array in out.items():
            apart = ((array.double() - exact[name].double()).norm() / exact[name].double().norm()).item()
            report["f32_against_f64_relative_error"][f"transformer.{key}.{name}"] = float(f"{apart:.2e}")
        arrays |= {f"transformer.{key}.{name}": array for name, array in (given | out).items()}
        report["size"][f"transformer.{key}.output std"] = out["output"].std().item()

        # Nothing is without effect.
        def changed(**other):
            inputs = {name: array for name, array in (given | other).items() if name != "cotangent"}
            return (transformer(**inputs, return_dict=False)[0] - out["output"]).pow(2).mean().sqrt().item()

        with torch.no_grad():
            effects = {name: changed(**{name: given[name].flip(0)}) for name in ("encoder_hidden_states", "pooled_projections", "timestep")}
            effects["guidance"] = changed(guidance=given["guidance"] + 1)
            effects["img_ids"] = changed(img_ids=ids[:, [0, 2, 1]])
            effects["txt_ids"] = changed(txt_ids=given["txt_ids"] + torch.arange(text)[:, None])
        report["size"] |= {f"transformer.{key}: effect of other {name}": effect for name, effect in effects.items()}
        assert min(effects.values()) > 0.02, effects
    return arrays


def pipeline_goldens(pipe, generator, report):
    clip_ids = pipe.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    t5_ids = pipe.tokenizer_2(PROMPTS, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, truncation=True, return_tensors="pt").input_ids
    embeds, pooled, text_ids = pipe.encode_prompt(PROMPTS, max_sequence_length=MAX_SEQUENCE_LENGTH)
    states = pipe.text_encoder(clip_ids).last_hidden_state
    assert torch.equal(pooled, states[torch.arange(2), clip_ids.argmax(-1)]) and (text_ids == 0).all()
    arrays = {"clip_ids": clip_ids, "t5_ids": t5_ids, "prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    vae = pipe.vae
    for key, height, width in PIPELINE_CASES:
        rows, columns = height // VAE_FACTOR, width // VAE_FACTOR
        latents = torch.randn(2, LATENT_CHANNELS, rows, columns, generator=generator)
        packed = pipe._pack_latents(latents, 2, LATENT_CHANNELS, rows, columns)
        at, by_steps = {}, []

        def every_step(pipe, index, timestep, kept):
            by_steps.append(kept["latents"].clone())
            return {}

        def watch(_module, _args, inputs, output):
            at.setdefault("velocity", output[0].clone())
            at.setdefault("first", inputs)

        handle = pipe.transformer.register_forward_hook(watch, with_kwargs=True)
        how = {"height": height, "width": width, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "latents": packed}
        final = pipe(PROMPTS, max_sequence_length=MAX_SEQUENCE_LENGTH, output_type="latent", callback_on_step_end=every_step, **how).images
        handle.remove()
        sigmas = pipe.scheduler.sigmas
        unpacked = pipe._unpack_latents(final, height, width, VAE_FACTOR)
        decoded = vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        image = (decoded / 2 + 0.5).clamp(0, 1)
        by_pipe = pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, output_type="pt", **how).images
        assert torch.equal(by_pipe, image) and torch.equal(by_steps[-1], final)
        assert torch.equal(at["first"]["img_ids"], image_ids(height, width)) and torch.equal(at["first"]["hidden_states"], packed)
        assert torch.allclose(by_steps[0], packed + (sigmas[1] - sigmas[0]) * at["velocity"])
        out = {
            "latents": latents,
            "packed_latents": packed,
            "sigmas": sigmas,
            "velocity": at["velocity"],
            "packed_latents_after_each_step": torch.stack(by_steps),
            "packed_final_latents": final,
            "final_latents": unpacked,
            "decoded": decoded,
            "image": image,
        }
        arrays |= {f"pipeline.{key}.{name}": array for name, array in out.items()}
        report["size"] |= {f"pipeline.{key}.{name} std": out[name].std().item() for name in ("velocity", "final_latents", "decoded")}
        report["size"][f"pipeline.{key}: pixels at a bound"] = ((image == 0) | (image == 1)).float().mean().item()
        mu = calculate_shift(packed.shape[1])
        report["pipeline"][key] = {"height": height, "width": width, "tokens": packed.shape[1], "mu": mu, "sigmas": sigmas.tolist()}
    picture = torch.rand(2, 3, 24, 40, generator=generator) * 2 - 1
    posterior = vae.encode(picture).latent_dist
    arrays |= {"encode_input": picture, "encode_mean": posterior.mean, "encode_logvar": posterior.logvar}
    report["size"] |= {f"{name} std": arrays[name].std().item() for name in ("prompt_embeds", "pooled_prompt_embeds", "encode_mean", "encode_logvar")}
    rms = (embeds[0] - embeds[1]).pow(2).mean().sqrt().item()
    report["size"]["prompt_embeds: difference of the prompts"] = rms
    return arrays


def shift_table(scheduler):
    table = []
    for tokens in SHIFT_TABLE_TOKENS:
        mu = calculate_shift(tokens)
        for steps in SHIFT_TABLE_STEPS:
            scheduler.set_timesteps(sigmas=numpy.linspace(1.0, 1 / steps, steps), mu=mu)
            table.append({"tokens": tokens, "mu": mu, "steps": steps, "sigmas": scheduler.sigmas.tolist()})
    return table


def main():
    tokenizers, directory = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    diffusers.utils.logging.disable_progress_bar()
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    make_pipeline(tokenizers, directory, generator)
    # Read back, so that the files are what the numbers were made of.
    pipe = FluxPipeline.from_pretrained(directory)
    pipe.set_progress_bar_config(disable=True)
    report = {"f32_against_f64_relative_error": {}, "size": {}, "pipeline": {}}
    arrays = transformer_goldens(pipe.transformer, generator, report)
    with torch.no_grad():
        arrays |= pipeline_goldens(pipe, generator, report)
    arrays = {name: array.detach().to(torch.int64 if array.dtype == torch.int64 else torch.float32).clone().contiguous() for name, array in arrays.items()}
    for name, array in arrays.items():
        assert torch.isfinite(array).all(), name
    save_file(arrays, directory / "golden.safetensors")
    about = {
        "made_with": {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers_library.__version__},
        "date": DATE,
        "seed": SEED,
        "prompts": PROMPTS,
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "guidance_scale": GUIDANCE,
        "steps": STEPS,
        "vae_scale_factor": VAE_FACTOR,
        "pipeline": report["pipeline"],
        "f32_against_f64_relative_error": report["f32_against_f64_relative_error"],
        "size": {name: float(f"{value:.4g}") for name, value in report["size"].items()},
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "note": "transformer.KEY.*: the arguments of FluxTransformer2DModel under their names, `output`, and grad.NAME = d sum(output * cotangent) / d NAME for "
        "three arguments and some weights; timestep is the time in [0, 1] that FluxPipeline passes, without the factor 1000. part.NAME: what the "
        "module NAME gave; of the blocks .0 is the text and .1 the image; of transformer_blocks.0.attn .0 is the image and .1 the text; of pos_embed "
        ".0 is the cosine and .1 the sine. pipeline.KEY.*: FluxPipeline on packed_latents (latents, packed) with `prompts`; velocity is that of the "
        "first step; decoded is the VAE's output before clamping, image after it. encode_*: the VAE's encoder.",
    }
    (directory / "golden.json").write_text(json.dumps(about, indent=1) + "\n")
    (directory / "shifts.json").write_text(json.dumps({"note": "FlowMatchEulerDiscreteScheduler of FLUX.1-dev", "table": shift_table(pipe.scheduler)}) + "\n")
    print(json.dumps(about["size"], indent=1))
    print("worst", max((error, name) for name, error in about["f32_against_f64_relative_error"].items()))
    for path in directory.rglob("*.safetensors"):
        path.chmod(0o644)
    print(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()), "bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Computes the goldens a second time without diffusers and transformers, from the facts in README.md, and says what common mistakes would change.

    pip install torch==2.15.0 safetensors==0.8.0 tokenizers==0.23.3 numpy
    python check.py DIRECTORY

Plain functions on the tensors of the files: the text encoders, the transformer, the shift of the times and the packing; not the VAE.
"""

import json
import math
import pathlib
import sys

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

MISTAKES = {
    "rope pairs halves": "rope",
    "rope in f32": "rope32",
    "other text ids than 0": None,
    "rows and columns of the ids swapped": None,
    "block modulation in the order scale, shift, gate": "modulation",
    "final modulation in the order shift, scale": "final",
    "sine before cosine": "sine",
    "exponent over half - 1": "spacing",
    "time without the factor 1000": "time",
    "guidance without the factor 1000": "guidance",
    "exact GELU": "gelu",
    "no norm of queries and keys": "qk",
    "norm of queries and keys with eps 1e-5": "qk_eps",
    "layer norm with eps 1e-5": "eps",
    "MLP before attention in a single block": "concat",
}


class Flux:
    def __init__(self, weights, config, mistake=None):
        self.weights, self.config, self.mistake = weights, config, mistake
        self.heads = config["num_attention_heads"]

    def linear(self, name, x):
        return F.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, x):
        return F.layer_norm(x, x.shape[-1:], eps=1e-5 if self.mistake == "eps" else 1e-6)

    def gelu(self, x):
        return F.gelu(x, approximate="none" if self.mistake == "gelu" else "tanh")

    def sinusoid(self, value):
        half = 128
        exponent = torch.arange(half, dtype=torch.float32) / (half - 1 if self.mistake == "spacing" else half)
        angle = value[:, None] * torch.exp(-math.log(10000) * exponent)
        parts = [angle.cos(), angle.sin()]
        return torch.cat(parts[::-1] if self.mistake == "sine" else parts, dim=-1)

    def two_layers(self, name, x):
        return self.linear(f"time_text_embed.{name}.linear_2", F.silu(self.linear(f"time_text_embed.{name}.linear_1", x)))

    def conditioning(self, time, guidance, pooled):
        time = time * (1 if self.mistake == "time" else 1000)
        guidance = guidance * (1 if self.mistake == "guidance" else 1000)
        time = self.two_layers("timestep_embedder", self.sinusoid(time))
        return time + self.two_layers("guidance_embedder", self.sinusoid(guidance)) + self.two_layers("text_embedder", pooled)

    def rope_table(self, ids):
        dtype = torch.float32 if self.mistake == "rope32" else torch.float64
        angles = []
        for axis, size in enumerate(self.config["axes_dims_rope"]):
            frequency = 1 / 10000 ** (torch.arange(0, size, 2, dtype=dtype) / size)
            angles.append(ids[:, axis, None].to(dtype) * frequency)
        angle = torch.cat(angles, dim=-1)  # [tokens, half of a head]
        return angle.cos().float(), angle.sin().float()

    def rotate(self, x, table):
        """x: [batch, tokens, heads, head]; elements 2i and 2i + 1 are the pair i."""
        cos, sin = (part[None, :, None, :] for part in table)
        if self.mistake == "rope":
            a, b = x.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)

    def rms(self, name, x):
        if self.mistake == "qk":
            return x
        eps = 1e-5 if self.mistake == "qk_eps" else 1e-6
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * self.weights[name + ".weight"]

    def qkv(self, prefix, names, norms, x):
        q, k, v = (self.linear(f"{prefix}.{name}", x).unflatten(-1, (self.heads, -1)) for name in names)
        return self.rms(f"{prefix}.{norms[0]}", q), self.rms(f"{prefix}.{norms[1]}", k), v

    def attend(self, q, k, v, table):
        q, k = self.rotate(q, table), self.rotate(k, table)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def modulation(self, name, temb, count):
        parts = [part[:, None] for part in self.linear(name, F.silu(temb)).chunk(count, dim=-1)]
        if self.mistake == "modulation":
            parts = [part for at in range(0, count, 3) for part in (parts[at + 1], parts[at], parts[at + 2])]
        return parts

    def double_block(self, index, image, text, temb, table):
        at = f"transformer_blocks.{index}"
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(f"{at}.norm1.linear", temb, 6)
        t_shift, t_scale, t_gate, t_mlp_shift, t_mlp_scale, t_mlp_gate = self.modulation(f"{at}.norm1_context.linear", temb, 6)
        of_image = self.qkv(f"{at}.attn", ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], self.norm(image) * (1 + scale) + shift)
        of_text = self.qkv(
            f"{at}.attn", ["add_q_proj", "add_k_proj", "add_v_proj"], ["norm_added_q", "norm_added_k"], self.norm(text) * (1 + t_scale) + t_shift
        )
        attended = self.attend(*(torch.cat(pair, dim=1) for pair in zip(of_text, of_image)), table)
        a_text, a_image = attended[:, : text.shape[1]], attended[:, text.shape[1] :]
        image = image + gate * self.linear(f"{at}.attn.to_out.0", a_image)
        text = text + t_gate * self.linear(f"{at}.attn.to_add_out", a_text)

        def feed_forward(name, x):
            return self.linear(f"{at}.{name}.net.2", self.gelu(self.linear(f"{at}.{name}.net.0.proj", x)))

        image = image + mlp_gate * feed_forward("ff", self.norm(image) * (1 + mlp_scale) + mlp_shift)
        text = text + t_mlp_gate * feed_forward("ff_context", self.norm(text) * (1 + t_mlp_scale) + t_mlp_shift)
        return image, text

    def single_block(self, index, both, temb, table):
        at = f"single_transformer_blocks.{index}"
        shift, scale, gate = self.modulation(f"{at}.norm.linear", temb, 3)
        x = self.norm(both) * (1 + scale) + shift
        mlp = self.gelu(self.linear(f"{at}.proj_mlp", x))
        attended = self.attend(*self.qkv(f"{at}.attn", ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], x), table)
        parts = [mlp, attended] if self.mistake == "concat" else [attended, mlp]
        return both + gate * self.linear(f"{at}.proj_out", torch.cat(parts, dim=-1))

    def __call__(self, latents, text, pooled, time, guidance, img_ids, txt_ids):
        table = self.rope_table(torch.cat([txt_ids, img_ids]))
        temb = self.conditioning(time, guidance, pooled)
        image, text = self.linear("x_embedder", latents), self.linear("context_embedder", text)
        for index in range(self.config["num_layers"]):
            image, text = self.double_block(index, image, text, temb, table)
        both = torch.cat([text, image], dim=1)
        for index in range(self.config["num_single_layers"]):
            both = self.single_block(index, both, temb, table)
        scale, shift = self.linear("norm_out.linear", F.silu(temb)).chunk(2, dim=-1)
        if self.mistake == "final":
            scale, shift = shift, scale
        image = self.norm(both[:, text.shape[1] :]) * (1 + scale[:, None]) + shift[:, None]
        return self.linear("proj_out", image)


def clip_pooled(weights, config, ids):
    """The last layer's output after the final norm, at the largest id of each row. No projection."""
    weights = {name.removeprefix("text_model."): array for name, array in weights.items()}
    heads = config["num_attention_heads"]

    def linear(name, x):
        return F.linear(x, weights[name + ".weight"], weights[name + ".bias"])

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], config["layer_norm_eps"])

    x = weights["embeddings.token_embedding.weight"][ids] + weights["embeddings.position_embedding.weight"][: ids.shape[1]]
    for index in range(config["num_hidden_layers"]):
        at = f"encoder.layers.{index}"
        y = norm(f"{at}.layer_norm1", x)
        q, k, v = (linear(f"{at}.self_attn.{name}_proj", y).unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qkv")
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(f"{at}.self_attn.out_proj", y)
        y = linear(f"{at}.mlp.fc1", norm(f"{at}.layer_norm2", x))
        x = x + linear(f"{at}.mlp.fc2", y * torch.sigmoid(1.702 * y))
    x = norm("final_layer_norm", x)
    return x[torch.arange(len(ids)), ids.argmax(-1)]


def t5_states(weights, config, ids):
    """All positions attend to all, the padding too."""
    heads = config["num_heads"]

    def norm(name, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["layer_norm_epsilon"]) * weights[name + ".weight"]

    def bucket(distance):  # key - query
        half = config["relative_attention_num_buckets"] // 2
        exact = half // 2
        away = abs(distance)
        if away >= exact:
            away = exact + int(math.log(away / exact) / math.log(config["relative_attention_max_distance"] / exact) * (half - exact))
        return min(away, half - 1) + (half if distance > 0 else 0)

    length = ids.shape[1]
    buckets = torch.tensor([[bucket(key - query) for key in range(length)] for query in range(length)])
    bias = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"][buckets].permute(2, 0, 1)
    x = weights["shared.weight"][ids]
    for index in range(config["num_layers"]):
        at = f"encoder.block.{index}.layer"
        y = norm(f"{at}.0.layer_norm", x)
        q, k, v = (F.linear(y, weights[f"{at}.0.SelfAttention.{name}.weight"]).unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qkv")
        y = ((q @ k.transpose(-1, -2) + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)  # not divided by the root of the size
        x = x + F.linear(y, weights[f"{at}.0.SelfAttention.o.weight"])
        y = norm(f"{at}.1.layer_norm", x)
        gate = F.gelu(F.linear(y, weights[f"{at}.1.DenseReluDense.wi_0.weight"]), approximate="tanh")
        y = gate * F.linear(y, weights[f"{at}.1.DenseReluDense.wi_1.weight"])
        x = x + F.linear(y, weights[f"{at}.1.DenseReluDense.wo.weight"])
    return norm("encoder.final_layer_norm", x)


def shifted_times(tokens, steps):
    slope = (1.15 - 0.5) / (4096 - 256)
    mu = tokens * slope + (0.5 - slope * 256)
    linear = numpy.linspace(1.0, 1 / steps, steps)
    return [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in linear] + [0.0]


def pack(latents):
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def main():
    torch.set_num_threads(1)
    directory = pathlib.Path(sys.argv[1])
    golden, about = load_file(directory / "golden.safetensors"), json.loads((directory / "golden.json").read_text())
    parts = {name: load_file(next((directory / name).glob("*.safetensors"))) for name in ("transformer", "text_encoder", "text_encoder_2")}
    configs = {name: json.loads((directory / name / "config.json").read_text()) for name in parts}

    def compare(name, ours, theirs, within):
        apart = (ours - theirs).abs().max().item()
        print(f"{name}: at most {apart:.1e} apart")
        assert apart <= within, name

    for name, key, length in [("tokenizer", "clip_ids", 77), ("tokenizer_2", "t5_ids", about["max_sequence_length"])]:
        tokenizer = Tokenizer.from_file(str(directory / name / "tokenizer.json"))
        tokenizer.no_padding()
        pad = 0 if name == "tokenizer_2" else tokenizer.token_to_id("<|endoftext|>")
        rows = [tokenizer.encode(prompt).ids for prompt in about["prompts"]]
        assert [row + [pad] * (length - len(row)) for row in rows] == golden[key].tolist(), name
    compare("pooled", clip_pooled(parts["text_encoder"], configs["text_encoder"], golden["clip_ids"]), golden["pooled_prompt_embeds"], 1e-5)
    compare("T5", t5_states(parts["text_encoder_2"], configs["text_encoder_2"], golden["t5_ids"]), golden["prompt_embeds"], 1e-5)

    flux = Flux(parts["transformer"], configs["transformer"])
    names = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids"]
    for key in ("wide", "tall"):
        given = [golden[f"transformer.{key}.{name}"] for name in names]
        right = golden[f"transformer.{key}.output"]
        compare(f"transformer, {key}", flux(*given), right, 2e-5)
        for mistake, code in MISTAKES.items():
            wrong = list(given)
            if mistake == "other text ids than 0":
                model, wrong[-1] = flux, given[-1] + 1000.0
            elif code is None:
                model, wrong[-2] = flux, given[-2][:, [0, 2, 1]]
            else:
                model = Flux(parts["transformer"], configs["transformer"], code)
            print(f"    {mistake}: {(model(*wrong) - right).abs().max().item():.1e}")

    for key, case in about["pipeline"].items():
        times = shifted_times(case["tokens"], about["steps"])
        compare(f"times, {key}", torch.tensor(times), golden[f"pipeline.{key}.sigmas"], 1e-6)
        x = pack(golden[f"pipeline.{key}.latents"])
        compare(f"packing, {key}", x, golden[f"pipeline.{key}.packed_latents"], 0)
        rows, columns = case["height"] // 4, case["width"] // 4
        ids = torch.tensor([[0.0, row, column] for row in range(rows) for column in range(columns)])
        for t, t_next in zip(times, times[1:]):
            time, guidance = torch.full([2], t), torch.full([2], about["guidance_scale"])
            text_ids = torch.zeros(golden["prompt_embeds"].shape[1], 3)
            v = flux(x, golden["prompt_embeds"], golden["pooled_prompt_embeds"], time, guidance, ids, text_ids)
            x = x + (t_next - t) * v
        compare(f"latents after {about['steps']} steps, {key}", x, golden[f"pipeline.{key}.packed_final_latents"], 2e-4)
        compare(f"unpacking, {key}", pack(golden[f"pipeline.{key}.final_latents"]), golden[f"pipeline.{key}.packed_final_latents"], 0)
    worst = 0.0
    for row in json.loads((directory / "shifts.json").read_text())["table"]:
        worst = max(worst, (torch.tensor(shifted_times(row["tokens"], row["steps"])) - torch.tensor(row["sigmas"])).abs().max().item())
    print(f"shift table: at most {worst:.1e} apart")
    assert worst < 1e-6


if __name__ == "__main__":
    main()

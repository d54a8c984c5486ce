"""The transformer of crates/models/src/dit.rs in PyTorch: the peer of `cargo xtask bench --peer PYTHON`.

Usage: python dit.py EXCHANGE REPETITIONS THREADS DEVICE. Reads weights, inputs and our results from the exchange file, checks
that velocity, loss and every gradient agree to 1e-3 of the largest number, times the cases, prints JSON.
Made with: pip install torch numpy safetensors (tried with torch 2.15, numpy 2.4, safetensors 0.6).
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open

path, repetitions, threads, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
# As the program on cuda: products of f32 in TF32.
torch.backends.cuda.matmul.allow_tf32 = True

with safe_open(path, "pt", device=device) as file:
    sizes = json.loads(file.metadata()["sizes"])
    tensors = {key: file.get_tensor(key) for key in file.keys()}

D, DEPTH, HEADS, P = sizes["width"], sizes["depth"], sizes["heads"], sizes["patch"]
SIDE = sizes["image_size"] // P
ELEMENTS = sizes["channels"] * P * P
MLP, T, N = sizes["mlp_ratio"] * D, sizes["text_length"], sizes["text_neighbours"]
HALF = 32


def linear(inputs, outputs):
    return {"weight": (inputs, outputs), "bias": (outputs,)}


def shapes():
    layers = {
        "patches": linear(ELEMENTS, D), "time_in": linear(2 * HALF, D), "time_out": linear(D, D), "pooled": linear(D, D),
        "modulation": linear(D, 2 * D), "output": linear(D, ELEMENTS),
    }
    if N > 1:
        layers |= {"text_in": linear(N * D, MLP), "text_out": linear(MLP, D)}
    for i in range(DEPTH):
        b = f"blocks.{i}."
        layers |= {b + "modulation": linear(D, 6 * D), b + "mlp_in": linear(D, MLP), b + "mlp_out": linear(MLP, D)}
        layers |= {b + name: linear(D, D) for name in ("to_q", "to_k", "to_v", "to_out")}
    found = {f"{layer}.{part}": shape for layer, parts in layers.items() for part, shape in parts.items()}
    for i in range(DEPTH):
        found |= {f"blocks.{i}.query_scale": (D // HEADS,), f"blocks.{i}.key_scale": (D // HEADS,)}
    found |= {"text_positions": (T, D), "text.weight": (-1, D)}
    return found


W = {name: tensors["weight." + name].reshape(shape).requires_grad_() for name, shape in shapes().items()}
ids = tensors["ids"].long()
t, data, noise = tensors["time"], tensors["data"], tensors["noise"]


def lin(name, x):
    return torch.addmm(W[name + ".bias"], x.reshape(-1, x.shape[-1]), W[name + ".weight"]).reshape(*x.shape[:-1], -1)


def norm(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def positions():
    quarter = D // 4
    frequencies = 100.0 ** (-torch.arange(quarter, device=device) / quarter)
    grid = torch.arange(SIDE, device=device).float()
    def half(place):
        angles = place[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], -1).reshape(len(place), -1)
    return torch.cat([half(grid.repeat_interleave(SIDE)), half(grid.repeat(SIDE))], 1)


POSITIONS = positions()


def forward(x, t):
    B = x.shape[0]
    frequencies = 1000 * torch.exp(-torch.arange(HALF, device=device) / HALF * math.log(10000.0))
    angles = t[:, None] * frequencies
    time_features = lin("time_out", F.silu(lin("time_in", torch.cat([angles.cos(), angles.sin()], 1))))
    text = F.embedding(ids, W["text.weight"])
    if N > 1:
        padded = F.pad(text, (0, 0, N // 2, N // 2))
        around = torch.cat([padded[:, offset : offset + T] for offset in range(N)], -1)
        text = text + lin("text_out", F.relu(lin("text_in", around)).square())
    condition = F.silu(time_features + lin("pooled", text.mean(1)))
    image = x.reshape(B, -1, SIDE, P, SIDE, P).permute(0, 2, 4, 1, 3, 5).reshape(B, SIDE * SIDE, ELEMENTS)
    h = torch.cat([text + W["text_positions"], lin("patches", image) + POSITIONS], 1)
    for i in range(DEPTH):
        b = f"blocks.{i}."
        shift1, scale1, gate1, shift2, scale2, gate2 = lin(b + "modulation", condition)[:, None].chunk(6, -1)
        y = norm(h) * (1 + scale1) + shift1
        q, k, v = (lin(b + name, y).reshape(B, -1, HEADS, D // HEADS).transpose(1, 2) for name in ("to_q", "to_k", "to_v"))
        q, k = norm(q) * W[b + "query_scale"], norm(k) * W[b + "key_scale"]
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, -1, D)
        h = h + lin(b + "to_out", y) * gate1
        y = norm(h) * (1 + scale2) + shift2
        h = h + lin(b + "mlp_out", F.relu(lin(b + "mlp_in", y)).square()) * gate2
    shift, scale = lin("modulation", condition)[:, None].chunk(2, -1)
    out = lin("output", norm(h[:, T:]) * (1 + scale) + shift)
    return out.reshape(B, SIDE, SIDE, -1, P, P).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def velocity(x, t):
    out, t = forward(x, t), t[:, None, None, None]
    if sizes["prediction"]["kind"] == "velocity":
        return out
    s = sizes["prediction"]["data_std"]
    variance = (1 - t) ** 2 * s**2 + t**2
    return x * (t - (1 - t) * s**2) / variance - out * s / variance.sqrt()


def loss():
    x = (1 - t)[:, None, None, None] * data + t[:, None, None, None] * noise
    return (velocity(x, t) - (noise - data)).square().mean()


def gradients():
    return torch.autograd.grad(loss(), list(W.values()))


def difference(got, want):
    return ((got.reshape(-1) - want.reshape(-1)).abs().max() / want.abs().max().clamp_min(1e-12)).item()


def finish():
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def only_forward():
    return velocity(noise, t)


largest = max(tensors["gradient." + name].abs().max() for name in W)
differences = {
    "velocity": difference(only_forward(), tensors["velocity"]),
    "loss": difference(loss().detach(), tensors["loss"]),
    "gradient": max(((g.reshape(-1) - tensors["gradient." + n]).abs().max() / largest).item() for n, g in zip(W, gradients())),
}
if max(differences.values()) > 1e-3:
    sys.exit(f"the two networks do not compute the same: {differences}")

seconds = {}
for name, case in (("forward", only_forward), ("train step", gradients)):
    for _ in range(2):
        case()
    seconds[name] = []
    for _ in range(repetitions):
        finish()
        started = time.perf_counter()
        case()
        finish()
        seconds[name].append(time.perf_counter() - started)
print(json.dumps({
    "versions": {"torch": torch.__version__, "python": sys.version.split()[0]}, "differences": differences, "seconds": seconds,
}))

#!/usr/bin/env python3
"""Makes `nft.json` and `nft.safetensors`: the DiffusionNFT loss on random tensors, and the decay of its old policy.

    pip install torch==2.15.0 safetensors==0.8.0
    python make.py OUTPUT_DIRECTORY

The loss is written here anew from the formula, in the order of operations and with the types of the published code (README.md says where that
is): inputs in f32, the adaptive weights in f64, so that the two losses and everything after them are f64. A second pass does all of it in f32
and a third all of it in f64; how far they are apart is in the JSON file.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

SEED = 20261125
SHAPE = (6, 4, 5, 5)
TIMES = [1.0, 0.9133489, 0.6021505, 0.4648760, 0.2780488, 0.0089286]
ADVANTAGES = [-7.5, -2.0, -0.3, 0.0, 1.7, 6.2]
ADVANTAGE_CLIP = 5.0
KL_WEIGHT = 1e-4
SMALLEST_WEIGHT = 1e-5
CASES = {"beta_1": (1.0, 1.0), "beta_0.1": (0.1, 1.0), "floor": (1.0, 1e-3)}  # beta, scale of the inputs


def row_mean(array, keepdim=False):
    return array.mean(dim=tuple(range(1, array.ndim)), keepdim=keepdim)


def weighted_error(x_t, t, prediction, x0, weight_type):
    """The squared error of the predicted x0 over its own (constant) mean absolute error, per row; and that weight."""
    x0_predicted = x_t - t * prediction
    with torch.no_grad():
        distance = (x0_predicted.to(weight_type) - x0.to(weight_type)).abs()
        weight = row_mean(distance, keepdim=True).clamp(min=SMALLEST_WEIGHT)
    return row_mean((x0_predicted - x0) ** 2 / weight), weight.flatten()


def nft(given, beta, dtype, weight_type):
    x0, noise, t, v, v_old, v_ref, advantages = (given[name].to(dtype) for name in ("x0", "noise", "t", "v", "v_old", "v_ref", "advantages"))
    v = v.clone().requires_grad_(True)
    t = t.view(-1, 1, 1, 1)
    x_t = (1 - t) * x0 + t * noise

    clipped = advantages.to(weight_type).clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)
    r = (clipped / ADVANTAGE_CLIP / 2 + 0.5).clamp(0, 1)

    positive_velocity = beta * v + (1 - beta) * v_old
    negative_velocity = (1 + beta) * v_old - beta * v
    positive, positive_weight = weighted_error(x_t, t, positive_velocity, x0, weight_type)
    negative, negative_weight = weighted_error(x_t, t, negative_velocity, x0, weight_type)

    row = r * positive / beta + (1 - r) * negative / beta
    policy_loss = (row * ADVANTAGE_CLIP).mean()
    kl = row_mean((v - v_ref) ** 2).mean()
    total = policy_loss + KL_WEIGHT * kl

    def gradient(of):
        return torch.autograd.grad(of, v, retain_graph=True)[0]

    return {
        "x_t": x_t,
        "r": r,
        "positive_weight": positive_weight,
        "negative_weight": negative_weight,
        "positive_loss": positive,
        "negative_loss": negative,
        "row_loss": row,
        "policy_loss": policy_loss.reshape(1),
        "unweighted_policy_loss": row.mean().reshape(1),
        "kl": kl.reshape(1),
        "total_loss": total.reshape(1),
        "grad_v": gradient(total),
        "grad_v_unweighted_policy": gradient(row.mean()),
        "grad_v_kl": gradient(kl),
    }


def inputs(generator, scale):
    x0, noise, shift, old_shift, ref_shift = (torch.randn(SHAPE, generator=generator) for _ in range(5))
    if scale == 1:
        v_old = 1.2 * (noise - x0) + 0.6 * old_shift
        v = v_old + 0.3 * shift
        v_ref = v_old + 0.5 * ref_shift
    else:
        # Nearly perfect velocities of small latents, so that the weights of some rows are below the smallest weight, and of others above.
        x0, noise = scale * x0, scale * noise
        size = torch.tensor([5e-6, 1e-3, 5e-6, 4e-5, 2e-5, 2e-3]).view(-1, 1, 1, 1)
        v_old = noise - x0 + size * old_shift
        v = v_old + 0.4 * size * shift
        v_ref = v_old + size * ref_shift
    return {"x0": x0, "noise": noise, "t": torch.tensor(TIMES), "v": v, "v_old": v_old, "v_ref": v_ref, "advantages": torch.tensor(ADVANTAGES)}


def old_policy_decay(step, kind):
    """The decay of the old policy after `step` optimiser updates; 0 replaces the old policy by the new one."""
    start, rate, most = {0: (0, 0.0, 0.0), 1: (0, 0.001, 0.5), 2: (75, 0.0075, 0.999)}[kind]
    return 0.0 if step < start else min((step - start) * rate, most)


def main():
    directory = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    arrays, cases = {}, []
    for key, (beta, scale) in CASES.items():
        given = inputs(generator, scale)
        out = nft(given, beta, torch.float32, torch.float64)
        f32 = nft(given, beta, torch.float32, torch.float32)
        f64 = nft(given, beta, torch.float64, torch.float64)
        arrays |= {f"{key}.{name}": array for name, array in given.items()}
        arrays |= {f"{key}.{name}": array.detach().float() for name, array in out.items()}

        def apart(other):
            return {name: float(f"{(out[name].double() - other[name].double()).abs().max().item():.2e}") for name in out}

        case = {"key": key, "beta": beta, "kl_weight": KL_WEIGHT, "advantage_clip": ADVANTAGE_CLIP, "smallest_weight": SMALLEST_WEIGHT}
        case |= {name: out[name].item() for name in ("policy_loss", "unweighted_policy_loss", "kl", "total_loss")}
        case |= {"max_abs": {name: float(f"{array.abs().max().item():.3e}") for name, array in out.items()}}
        case |= {"all_f32_max_abs_difference": apart(f32), "all_f64_max_abs_difference": apart(f64)}
        cases.append(case)
        for name in ("r", "positive_weight", "negative_weight", "row_loss", "policy_loss", "total_loss"):
            print(key, name, out[name].tolist())
        print(key, "relative error of grad_v", ((out["grad_v"] - f64["grad_v"]).norm() / f64["grad_v"].norm()).item())
        expected = ADVANTAGE_CLIP * out["grad_v_unweighted_policy"] + KL_WEIGHT * out["grad_v_kl"]
        assert torch.allclose(out["grad_v"], expected, rtol=1e-4, atol=1e-9)
    floored = arrays["floor.positive_weight"] == torch.tensor(SMALLEST_WEIGHT)
    assert floored.any() and not floored.all()
    arrays = {name: array.contiguous().clone() for name, array in arrays.items()}
    for name, array in arrays.items():
        assert array.dtype == torch.float32 and torch.isfinite(array).all(), name
    save_file(arrays, directory / "nft.safetensors")
    steps = [0, 1, 2, 10, 74, 75, 76, 80, 100, 200, 208, 209, 250, 499, 500, 501, 1000]
    about = {
        "made_with": {"torch": torch.__version__},
        "date": "2026-11-25",
        "seed": SEED,
        "shape": list(SHAPE),
        "times": TIMES,
        "advantages": ADVANTAGES,
        "note": "Arrays are named KEY.NAME. x0, noise, t, v, v_old, v_ref, advantages are given; total_loss = policy_loss + kl_weight * kl; policy_loss = "
        "advantage_clip * unweighted_policy_loss; unweighted_policy_loss = mean of row_loss; row_loss = (r positive_loss + (1 - r) "
        "negative_loss) / beta; grad_v = d total_loss / d v; grad_v_unweighted_policy and grad_v_kl are the gradients of "
        "unweighted_policy_loss and of kl alone. Computed as published: f32, the weights in f64, results rounded to f32.",
        "cases": cases,
        "old_policy_decay": {
            "note": "decay after that many optimiser updates, by the type of the published configuration; old = decay * old + (1 - decay) * new",
            "steps": steps,
            "type_0": [old_policy_decay(step, 0) for step in steps],
            "type_1": [old_policy_decay(step, 1) for step in steps],
            "type_2": [old_policy_decay(step, 2) for step in steps],
        },
    }
    (directory / "nft.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()

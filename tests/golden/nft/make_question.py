#!/usr/bin/env python3
"""Makes `question.json` and `question.safetensors`: updates of DiffusionNFT on a field in closed form, batch by batch.

    pip install torch==2.15.0 safetensors==0.8.0
    python make_question.py DIRECTORY_OF_NOISE_JSON OUTPUT_DIRECTORY

The field is v(x, t, c) = gain * x * (1 + c) + slope * t + offset * c with one number per channel; the policy, the old policy and the reference
have different numbers. Everything is f64 from inputs that are f32, written from the formulas in README.md. `noise.json` has the noise of every
step and row as the program draws it, so that latents can be compared.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

SEED = 20261126
ROWS, SHAPE, STEPS, SHIFT = 6, (2, 2, 3), 5, 3.0
CONDITIONS = [0.5, -0.25, 1.0, 0.75, -0.5, 0.125]
ADVANTAGES = [-7.5, -1.0, 0.0, 0.5, 2.0, 6.25]
# The batches of a case are (step, rows through the field, positions of the examples among them), in the order of the update.
CASES = {
    "alone": {
        "guidance": None,
        "kl_weight": 0.0,
        "beta": 1.0,
        "advantage_clip": 5.0,
        "smallest_weight": 1e-5,
        "batches": [(1, [0, 1], [0, 1]), (1, [4], [0]), (3, [2, 5], [0, 1])],
    },
    "as_sampled": {
        "guidance": 2.5,
        "kl_weight": 0.3,
        "beta": 0.5,
        "advantage_clip": 3.0,
        # Above some rows' mean distance and below others'.
        "smallest_weight": 0.9,
        "batches": [(0, [0, 1, 2, 3], [0, 2]), (2, [0, 1, 2, 3], [1, 3]), (2, [4, 5], [0])],
    },
}
NETWORKS = ("policy", "old", "reference")


def time_of(step):
    linear = 1 - step / STEPS
    return SHIFT * linear / (1 + (SHIFT - 1) * linear)


def field(network, x, t, conditions):
    per_row = lambda numbers: torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1, 1)
    c = per_row(conditions)
    return network["gain"] * x * (1 + c) + network["slope"] * per_row(t) + network["offset"] * c


def guided(network, x, t, conditions, scale):
    """The velocity, with guidance if there is a scale: v(0) + scale * (v(c) - v(0))."""
    times = [t] * len(conditions)
    with_condition = field(network, x, times, conditions)
    if scale is None:
        return with_condition
    without = field(network, x, times, [0.0] * len(conditions))
    return without + scale * (with_condition - without)


def row_mean(array):
    return array.flatten(1).mean(1)


def half(x_t, t, velocity, x0, smallest):
    x0_predicted = x_t - t * velocity
    weight = row_mean((x0_predicted - x0).abs()).detach().clamp(min=smallest)
    return row_mean((x0_predicted - x0) ** 2) / weight, weight


def batch_numbers(case, networks, data, noise, batch):
    """The policy loss (times the clip) and the KL of every example, and the query of the batch."""
    step, rows, trained = batch
    t, x0, beta = time_of(step), data[rows], case["beta"]
    x_t = (1 - t) * x0 + t * noise[step, rows]
    conditions = [CONDITIONS[row] for row in rows]
    v, v_old, v_ref = (guided(networks[name], x_t, t, conditions, case["guidance"]) for name in NETWORKS)
    advantages = torch.tensor([ADVANTAGES[row] for row in rows], dtype=torch.float64)
    r = (advantages.clamp(-case["advantage_clip"], case["advantage_clip"]) / case["advantage_clip"] / 2 + 0.5).clamp(0, 1)
    positive, positive_weight = half(x_t, t, beta * v + (1 - beta) * v_old, x0, case["smallest_weight"])
    negative, negative_weight = half(x_t, t, (1 + beta) * v_old - beta * v, x0, case["smallest_weight"])
    policy = (r * positive / beta + (1 - r) * negative / beta) * case["advantage_clip"]
    kl = row_mean((v - v_ref) ** 2) if case["kl_weight"] > 0 else torch.zeros(len(rows), dtype=torch.float64)
    doubled = case["guidance"] is not None
    query = {
        "latent": torch.cat([x_t, x_t]) if doubled else x_t,
        "time": torch.full((len(rows) * (1 + doubled),), t),
        "conditions": torch.tensor([0.0] * len(rows) * doubled + conditions),
    }
    return query, policy[trained], kl[trained], torch.cat([positive_weight, negative_weight])


def run(key, case, networks, data, noise):
    arrays, losses, kls, total = {}, [], [], 0.0
    examples = sum(len(trained) for _, _, trained in case["batches"])
    weights = []
    for index, batch in enumerate(case["batches"]):
        query, loss, kl, weight = batch_numbers(case, networks, data, noise, batch)
        value = (loss + case["kl_weight"] * kl).sum() / examples
        total = total + value
        losses.append(loss)
        kls.append(kl)
        weights.append(weight)
        arrays |= {f"{key}.{index}.{name}": array for name, array in query.items()}
        arrays |= {f"{key}.{index}.value": value.reshape(1), f"{key}.{index}.numbers": torch.cat([loss, kl])}
    parameters = networks["policy"]
    gradients = torch.autograd.grad(total, list(parameters.values()))
    arrays |= {f"{key}.grad_{name}": gradient for name, gradient in zip(parameters, gradients)}
    arrays |= {f"{key}.loss": total.reshape(1), f"{key}.policy_loss": torch.cat(losses), f"{key}.kl": torch.cat(kls)}
    floored = torch.cat(weights) == case["smallest_weight"]
    return arrays, floored


def main():
    given, directory = map(pathlib.Path, sys.argv[1:])
    noise = torch.tensor(json.loads((given / "noise.json").read_text())["noise"]).float().double().view(STEPS, ROWS, *SHAPE)
    generator = torch.Generator().manual_seed(SEED)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    inputs = {"data": draw(ROWS, *SHAPE)}
    for name in NETWORKS:
        inputs |= {f"{name}.{part}": 0.6 * draw(1, SHAPE[0], 1, 1) for part in ("gain", "offset", "slope")}
    arrays, cases = dict(inputs), []
    for key, case in CASES.items():
        networks = {name: {part: inputs[f"{name}.{part}"].double().requires_grad_(name == "policy") for part in ("gain", "offset", "slope")} for name in NETWORKS}
        out, floored = run(key, case, networks, inputs["data"].double(), noise)
        print(key, {name: array.tolist() for name, array in out.items() if "loss" in name or "kl" in name}, "weights at their floor:", floored.sum().item(), "of", len(floored))
        if key == "as_sampled":
            assert floored.any() and not floored.all()
        arrays |= {name: array.detach() for name, array in out.items()}
        batches = [{"step": step, "rows": rows, "trained": trained} for step, rows, trained in case["batches"]]
        cases.append({"key": key} | case | {"batches": batches})
    save_file({name: array.float().contiguous().clone() for name, array in arrays.items()}, directory / "question.safetensors")
    about = {"made_with": {"torch": torch.__version__}, "date": "2026-11-25", "seed": SEED, "steps": STEPS, "shift": SHIFT}
    about |= {"conditions": CONDITIONS, "advantages": ADVANTAGES, "cases": cases}
    (directory / "question.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()

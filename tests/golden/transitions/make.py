#!/usr/bin/env python3
"""Makes `transitions.json` and `transitions.safetensors`: single steps of Flow-CPS and of DanceGRPO's SDE, in f32.

    pip install torch==2.15.0 safetensors==0.8.0
    python make.py OUTPUT_DIRECTORY

The formulas are written here anew, in the order of operations of the published code (README.md says where that is), so that f32 rounds alike.
Every case is computed a second time in f64 from the unrounded times: the differences are in the JSON file and say what a test may ask for.
"""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file

SEED = 20261125
SHAPE = (3, 4, 6, 6)
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)

CASES = [
    # kind, noise levels, grid, steps of the grid
    ("flow_cps", [0.0, 0.5, 0.8, 0.9], "sd3_double_shift", [0, 4, 8]),
    ("flow_cps", [0.0, 0.5, 0.8, 0.9], "linear", [0, 3, 6]),
    ("flow_cps", [0.8], "sd3_double_shift", [9]),  # to t' = 0: no noise, the mean is the predicted clean latent
    ("dance", [0.1, 0.3, 0.7], "sd3_double_shift", [0, 4, 8, 9]),
    ("dance", [0.1, 0.3, 0.7], "linear", [0, 3, 6, 7]),
]
GRIDS = {"sd3_double_shift": {"kind": "sd3_double_shift", "shift": 3.0, "n_steps": 10}, "linear": {"kind": "linear", "n_steps": 8}}


def times(grid):
    """The grid in f64, as crates/flow/src/time_grid.rs makes it."""
    n = grid["n_steps"]
    if grid["kind"] == "linear":
        return [1 - i / n for i in range(n)] + [0.0]
    k = grid["shift"]

    def shift(t):
        return k * t / (1 + (k - 1) * t)

    last = shift(1e-3)
    return [shift(1 + (last - 1) * i / (n - 1)) for i in range(n)] + [0.0]


def flow_cps(x, v, t, t_next, level):
    """Mean and std. `t`, `t_next` are 0-d tensors; the sine is a Python float."""
    std = t_next * math.sin(level * math.pi / 2)
    clean = x - t * v
    noise = x + v * (1 - t)
    mean = clean * (1 - t_next) + noise * torch.sqrt(t_next**2 - std**2)
    return mean, std


def dance(x, v, t, t_next, level):
    """Mean and std. The std is a Python float: the root of the (f32) duration is taken in f64."""
    dt = t_next - t
    euler = x + dt * v
    clean = x - t * v
    score = -(x - clean * (1 - t)) / t**2
    mean = euler + -0.5 * level**2 * score * dt
    return mean, level * math.sqrt(t - t_next)


STEPS = {"flow_cps": flow_cps, "dance": dance}


def log_density(value, mean, std):
    """The Gaussian log density of `value`, averaged over the elements of each row."""
    density = -((value - mean) ** 2) / (2 * std**2) - math.log(float(std)) - LOG_SQRT_2PI
    return density.mean(dim=(1, 2, 3))


def run(kind, level, t, t_next, given, dtype):
    x, velocity, velocity_2, noise = (array.to(dtype) for array in given)
    t, t_next = torch.tensor(t, dtype=dtype), torch.tensor(t_next, dtype=dtype)
    mean, std = STEPS[kind](x, velocity, t, t_next, level)
    mean_2, _ = STEPS[kind](x, velocity_2, t, t_next, level)
    value = mean + std * noise
    out = {"mean": mean, "mean_2": mean_2, "next": value}
    if float(std) > 0:
        out |= {"log_prob": log_density(value, mean, std), "log_prob_2": log_density(value, mean_2, std)}
        out["ratio"] = torch.exp(out["log_prob_2"] - out["log_prob"])
    if kind == "flow_cps":
        out |= {
            "log_prob_no_variance": -((value - mean) ** 2).mean(dim=(1, 2, 3)),
            "log_prob_no_variance_2": -((value - mean_2) ** 2).mean(dim=(1, 2, 3)),
        }
    return out, float(std)


def main():
    directory = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    arrays, cases = {}, []
    for kind, levels, grid_name, steps in CASES:
        grid = GRIDS[grid_name]
        for level in levels:
            for step in steps:
                given = [torch.randn(SHAPE, generator=generator) for _ in range(4)]
                x, velocity, shift, noise = given
                velocity = 1.4 * velocity
                t, t_next = times(grid)[step : step + 2]
                # The second mean is about a third of a std away: the ratio is neither 0 nor 1.
                probe, std = run(kind, level, t, t_next, [x, velocity, velocity + 1, noise], torch.float64)
                apart = 0.3 * std / (probe["mean_2"] - probe["mean"]).abs().mean().item() if std > 0 else 0.15
                given = [x, velocity, velocity + apart * shift, noise]
                out, std = run(kind, level, t, t_next, given, torch.float32)
                exact, _ = run(kind, level, t, t_next, given, torch.float64)
                key = f"{kind}_{level}_{grid_name}_s{step}"
                arrays |= {f"{key}.{name}": array for name, array in zip(["x", "velocity", "velocity_2", "noise"], given)}
                arrays |= {f"{key}.{name}": array for name, array in out.items()}
                case = {"key": key, "kind": kind, "noise_level": level, "grid": grid, "n_steps": grid["n_steps"], "step": step}
                case |= {"from": t, "to": t_next, "std": std, "log_prob": out["log_prob"].tolist() if "log_prob" in out else None}
                case["f32_minus_f64_max_abs"] = {
                    name: float(f"{(array - exact[name]).abs().max().item():.2e}") for name, array in out.items()
                }
                if level == 0.0:
                    ode = x.double() + velocity.double() * (t_next - t)
                    assert torch.allclose(exact["mean"], ode, atol=1e-12) and std == 0.0
                cases.append(case)
    arrays = {name: array.contiguous().clone() for name, array in arrays.items()}
    for name, array in arrays.items():
        assert array.dtype == torch.float32 and torch.isfinite(array).all(), name
    save_file(arrays, directory / "transitions.safetensors")
    about = {
        "made_with": {"torch": torch.__version__},
        "date": "2026-11-25",
        "seed": SEED,
        "shape": list(SHAPE),
        "note": "Arrays are named KEY.NAME. x, velocity, velocity_2, noise are given; mean and next = mean + std * noise come from velocity; mean_2 "
        "from velocity_2; log_prob and log_prob_2 are the full Gaussian log densities of next under mean and mean_2, averaged over the "
        "elements of a row; ratio = exp(log_prob_2 - log_prob); log_prob_no_variance = -mean((next - mean)^2), Flow-CPS's own. from and to "
        "are the f64 grid, rounded to f32 for the arrays. Without noise (std 0) there is no log_prob.",
        "cases": cases,
    }
    (directory / "transitions.json").write_text(json.dumps(about, indent=1) + "\n")
    worst = {}
    for case in cases:
        for name, value in case["f32_minus_f64_max_abs"].items():
            worst[name] = max(worst.get(name, (0, "")), (value, case["key"]))
    print(len(cases), "cases", worst)
    ratios = torch.cat([array for name, array in arrays.items() if name.endswith(".ratio")])
    print("ratios", ratios.min().item(), ratios.max().item())


if __name__ == "__main__":
    main()

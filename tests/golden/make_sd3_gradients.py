#!/usr/bin/env python3
"""Makes `sd3-gradients.safetensors` and `.json`: PyTorch's gradients of one replayed Flow-GRPO step with respect to a LoRA adapter.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 peft==0.21.2 safetensors==0.8.0 accelerate==1.15.0
    python make_sd3_gradients.py MODEL_DIRECTORY OUTPUT_DIRECTORY

MODEL_DIRECTORY holds the tiny SD3 pipeline in the diffusers layout with `golden.safetensors` (latents and prompt embeddings) and `lora_peft/`.
The step and the loss are written as in the public reference code (yifan123/flow_grpo: `sde_step_with_logprob` and the training loop of
`train_sd3.py`), in f32 on the CPU; the same in f64 says how far f32 is from it.
"""

import json
import math
import pathlib
import sys

import diffusers
import peft
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from peft import PeftModel
from safetensors.torch import load_file, save_file

SEED = 20261125
DATE = "2026-11-25"
STEPS, STEP = 10, 3
GUIDANCE = 4.5
NOISE_LEVEL = 0.7
CLIP_RANGE = 0.2
BETA = 0.04
ADVANTAGES = [1.3, -0.7]


def velocity(model, golden, x, timestep):
    """Classifier-free guidance in one batch, the negative half first."""
    both = model(
        hidden_states=torch.cat([x, x]),
        timestep=timestep.expand(2 * len(x)),
        encoder_hidden_states=torch.cat([golden["negative_prompt_embeds"], golden["prompt_embeds"]]),
        pooled_projections=torch.cat([golden["negative_pooled"], golden["pooled"]]),
        return_dict=False,
    )[0]
    negative, positive = both.chunk(2)
    return negative + GUIDANCE * (positive - negative)


def sde_step(v, x, t, t_next):
    """Mean and std_dev_t of the step from t to t_next."""
    dt = t_next - t
    std_dev_t = torch.sqrt(t / (1 - t)) * NOISE_LEVEL
    mean = x * (1 + std_dev_t**2 / (2 * t) * dt) + v * (1 + std_dev_t**2 * (1 - t) / (2 * t)) * dt
    return mean, std_dev_t


def log_prob(x_next, mean, std_dev_t, t, t_next):
    std = std_dev_t * torch.sqrt(t - t_next)
    density = -((x_next.detach() - mean) ** 2) / (2 * std**2) - torch.log(std) - torch.log(torch.sqrt(2 * torch.as_tensor(math.pi)))
    return density.mean(dim=tuple(range(1, density.ndim)))


def replay(directory, dtype, given=None):
    golden = load_file(directory / "golden.safetensors")
    golden = {name: array.to(dtype) for name, array in golden.items() if array.is_floating_point()}
    transformer = SD3Transformer2DModel.from_pretrained(directory / "transformer", torch_dtype=torch.float32)
    model = PeftModel.from_pretrained(transformer, directory / "lora_peft", is_trainable=True).to(dtype).train()
    peft_config = model.peft_config["default"]
    assert (peft_config.r, peft_config.lora_alpha, peft_config.lora_dropout) == (4, 8, 0.0)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    t, t_next = scheduler.sigmas[STEP].to(dtype), scheduler.sigmas[STEP + 1].to(dtype)
    timestep = scheduler.timesteps[STEP].to(dtype)
    x = golden["latents"]

    with torch.no_grad(), model.disable_adapter():
        v_ref = velocity(model, golden, x, timestep)
        mean_ref, std_dev_t = sde_step(v_ref, x, t, t_next)
    if given is None:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float32)
        x_next = mean_ref + std_dev_t * torch.sqrt(t - t_next) * noise
        old = log_prob(x_next, mean_ref, std_dev_t, t, t_next)
    else:
        x_next, old = given["x_next"].to(dtype), given["old_log_prob"].to(dtype)

    v = velocity(model, golden, x, timestep)
    mean, std_dev_t = sde_step(v, x, t, t_next)
    new = log_prob(x_next, mean, std_dev_t, t, t_next)
    advantages = torch.tensor(ADVANTAGES, dtype=dtype)
    ratio = torch.exp(new - old)
    clipped = torch.clamp(ratio, 1 - CLIP_RANGE, 1 + CLIP_RANGE)
    policy_loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean()
    kl = ((mean - mean_ref) ** 2).mean(dim=(1, 2, 3)) / (2 * std_dev_t**2)
    loss = policy_loss + BETA * kl.mean()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".default.weight" in name for name in trained)
    of_kl = torch.autograd.grad(kl.mean(), list(trained.values()), retain_graph=True)
    loss.backward()

    out = {
        "x_next": x_next,
        "old_log_prob": old,
        "new_log_prob": new,
        "ratio": ratio,
        "kl": kl,
        "loss": loss,
        "policy_loss": policy_loss,
        "advantages": advantages,
        "times": torch.stack([t, t_next]),
        "timestep": timestep,
        "std_dev_t": std_dev_t,
    }
    for (name, parameter), kl_gradient in zip(trained.items(), of_kl):
        name = name.replace(".default.weight", ".weight")
        out["grad." + name] = parameter.grad
        out["grad_kl." + name] = kl_gradient
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in trained)
    return {name: array.detach().clone().contiguous() for name, array in out.items()}


def main():
    directory, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    out = replay(directory, torch.float32)
    adapter = load_file(directory / "lora_peft" / "adapter_model.safetensors")
    gradients = [name for name in out if name.startswith("grad.")]
    last = max(int(name.split(".transformer_blocks.")[1].split(".")[0]) for name in gradients)
    assert {name.removeprefix("grad.") for name in gradients} == set(adapter)
    for name in gradients:
        assert out[name].shape == adapter[name.removeprefix("grad.")].shape
        # The queries of the text in the last block reach nothing: its text output is thrown away.
        unused = f".{last}.attn.add_q_proj." in name
        assert torch.isfinite(out[name]).all() and (out[name].abs().max() > 0) != unused, name
    assert ((out["ratio"] - 1).abs() < 0.9 * CLIP_RANGE).all() and ((out["ratio"] - 1).abs() > 1e-5).all()

    exact = replay(directory, torch.float64, out)

    def norm(prefix):
        return torch.sqrt(sum(array.pow(2).sum() for name, array in out.items() if name.startswith(prefix))).item()

    worst = max(((out[name] - exact[name]).norm() / exact[name].norm()).item() for name in out if name.startswith("grad") and exact[name].any())
    total, total_kl = norm("grad."), norm("grad_kl.")
    for name in ("times", "timestep", "std_dev_t", "old_log_prob", "new_log_prob", "ratio", "kl", "policy_loss", "loss"):
        print(name, [f"{value:.9f}" for value in out[name].flatten().tolist()], [f"{value:.9f}" for value in exact[name].flatten().tolist()])
    norms = sorted((out[name].norm().item(), name) for name in gradients)
    print(f"{len(gradients)} gradients, norms {norms[0]} to {norms[-1]}, together {total}, of the KL alone {total_kl}, f32 against f64 at worst {worst:.2e}")

    save_file(out, output / "sd3-gradients.safetensors")
    about = {
        "made_with": {"torch": torch.__version__, "diffusers": diffusers.__version__, "peft": peft.__version__},
        "date": DATE,
        "seed": SEED,
        "steps": STEPS,
        "step": STEP,
        "shift": 3.0,
        "guidance_scale": GUIDANCE,
        "noise_level": NOISE_LEVEL,
        "clip_range": CLIP_RANGE,
        "beta": BETA,
        "advantages": ADVANTAGES,
        "lora_r": 4,
        "lora_alpha": 8,
        "ratio": out["ratio"].tolist(),
        "loss": out["loss"].item(),
        "gradient_norm": total,
        "kl_gradient_norm": total_kl,
        "f32_against_f64_worst_relative_error": float(f"{worst:.3e}"),
        "shapes": {name: list(array.shape) for name, array in out.items()},
        "note": "x_t is `latents` of the model's golden; x_next was drawn from the policy without the adapter, old_log_prob is that policy's; "
        "ratio = exp(new_log_prob - old_log_prob); kl = mean over elements of (mean - mean_reference)^2 / (2 std_dev_t^2), one per row; "
        "loss = mean over rows of max(-A ratio, -A clip(ratio)) + beta * mean of kl; grad.NAME is d loss / d NAME with PEFT's names, "
        "grad_kl.NAME is d (mean of kl) / d NAME, without beta.",
    }
    (output / "sd3-gradients.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The work of Flow-GRPO on Stable Diffusion 3.5 in PyTorch, diffusers and PEFT: the numbers to measure ours against.

Usage: python sd3.py MODEL_DIRECTORY [--resolution 512] [--batch 1 2 4 8 16] [--precision bf16|tf32|f32] [--compile] [--recompute]
... (--help lists all). MODEL_DIRECTORY is in the layout of diffusers; transformer, vae and scheduler are read from it, text
encoders are not: prompt embeddings are random. With --random only the three configurations are read. Progress goes to standard
error, one JSON object to standard output.
Made with:
pip install torch==2.15.0 diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 accelerate==1.15.0 numpy==2.4.6 safetensors==0.8.0

The work is that of scripts/train_sd3.py of github.com/yifan123/flow_grpo, for each batch size B:
- denoise: the transformer on 2B rows (guidance; B rows if --guidance is at most 1) without gradient, then the SDE step in f32.
- transition: one trained transition: the policy's forward with gradient on 2B rows, the reference's forward (adapters off,
  without gradient), log-probability, ratio, clipped loss + KL, backward.
- update: the gradient-norm clip, one AdamW step and the clearing of the gradients. It does not depend on B.
- decode: the VAE's decoder on B latents.
Base weights and VAE are in the precision, adapters in f32. With bf16 the transformer runs under autocast, as in the reference:
the adapters' products are then in bf16 too; with --no-autocast they are in f32 (TF32 unless --no-tf32). The reference itself
keeps the base weights in f32 under autocast. "compiled" has the same cases with torch.compile of the transformer (static
shapes, default mode; one compilation for each of policy without gradient, policy with gradient and reference), except decode,
which it does not touch; compilation happens in the first warm-up run, whose seconds stand in "compile". peak_mib is the most
memory that PyTorch had allocated during the case, weights of transformer and VAE (and the optimiser's moments, from the first
update on) included. A case that runs out of memory is null, a batch size none of whose cases fits is null.

flop_per_row: floating-point operations of one forward of the transformer without adapters on one row (one latent with one
prompt); a product of (m, k) with (k, n) counts 2mkn, norms, activations and softmax count nothing. N picture tokens, T text
tokens, width D, latent channels C in and O out, patch p, text width J, pooled width P; the last block is l:
  embeddings      2 N p^2 C D + 2 T J D + 2 (256 D + D^2) + 2 (P D + D^2)     patches, text, time, pooled
  every block     2 * 6 D^2 (9 D^2 with dual attention) + 2 * 6 D^2 (2 D^2 in l)    modulation of picture and of text
                  + 2 * 3 (N + T) D^2 + 4 (N + T)^2 D + 2 N D^2 + 2 * 8 N D^2      q, k, v; attention; out; MLP
                  + 2 T D^2 + 2 * 8 T D^2 (not in l)                               out and MLP of the text
  dual attention  + 2 * 4 N D^2 + 4 N^2 D
  output          2 * 2 D^2 + 2 N D p^2 O
"flop_parts" has its summands (products, attention) and, not in it, the adapters: 2 r (in + out) for every token and adapted
layer. With R rows (2B with guidance) a denoise is R (products + attention + adapters), a transition
R (2 (products + attention) + adapters) forward and about R (products + 2 attention + 2 adapters) backward, since the base has
no weight gradients; --recompute adds about R (products + attention + adapters) that are not useful work. PyTorch's own counter
(torch.utils.flop_counter) finds exactly the same forward, and 2 % less for the backward of SD3.5 Medium at 512 pixels, since
what comes before the first adapter and the modulations need no gradients.
"""

import argparse
import contextlib
import gc
import json
import math
import statistics
import sys
import time

import accelerate
import diffusers
import numpy
import peft
import safetensors
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

TARGETS = [f"attn.{name}" for name in (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)]
STEPS, STEP, NOISE_LEVEL = 10, 3, 0.7
CLIP_RANGE, BETA, ADVANTAGE_CLIP, GRADIENT_CLIP = 1e-4, 0.04, 5.0, 1.0
WARM_UP = 2

parser = argparse.ArgumentParser(description="Flow-GRPO's work on Stable Diffusion 3.5 in PyTorch, diffusers and PEFT.")
parser.add_argument("model", metavar="MODEL_DIRECTORY", help="a model in the layout of diffusers")
parser.add_argument("--resolution", type=int, default=512, help="side of the pictures in pixels")
parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="batch sizes to try")
parser.add_argument("--precision", choices=["bf16", "tf32", "f32"], default="bf16", help="of base weights and VAE; tf32: f32, products in TF32")
parser.add_argument("--repetitions", type=int, default=5, help=f"timed runs of a case, after {WARM_UP} that are not")
parser.add_argument("--compile", action="store_true", help="measure torch.compile of the transformer too")
parser.add_argument("--guidance", type=float, default=4.5, help="at most 1: no guidance, B rows instead of 2B")
parser.add_argument("--text-length", type=int, default=205, help="tokens of a prompt: 77 of CLIP and 128 of T5")
parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
parser.add_argument("--rank", type=int, default=32)
parser.add_argument("--alpha", type=float, default=64)
parser.add_argument("--random", action="store_true", help="random weights: no weight files are read")
parser.add_argument("--no-autocast", action="store_true", help="bf16 without autocast: the adapters' products in f32")
parser.add_argument("--no-tf32", action="store_true", help="f32 products on the GPU in full f32")
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--threads", type=int, help="of the CPU")
args = parser.parse_args()

device, on_gpu = args.device, args.device == "cuda"
dtype = {"bf16": torch.bfloat16, "tf32": torch.float32, "f32": torch.float32}[args.precision]
guided = args.guidance > 1
use_autocast = args.precision == "bf16" and not args.no_autocast
if args.threads:
    torch.set_num_threads(args.threads)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not args.no_tf32
torch.manual_seed(0)


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def load(kind, folder):
    if not args.random:
        return kind.from_pretrained(args.model, subfolder=folder, torch_dtype=dtype).to(device)
    with torch.device(device):
        return kind.from_config(kind.load_config(args.model, subfolder=folder)).to(device, dtype)


vae = load(AutoencoderKL, "vae").requires_grad_(False).eval()
transformer = load(SD3Transformer2DModel, "transformer").requires_grad_(False)
# Puts the adapters' layers into `transformer`, which stays what is called.
policy = peft.get_peft_model(transformer, peft.LoraConfig(
    r=args.rank, lora_alpha=args.alpha, init_lora_weights="gaussian", target_modules=TARGETS,
))
trained = [p for p in policy.parameters() if p.requires_grad]
assert trained and all(p.dtype == torch.float32 for p in trained), "adapters are to be in f32"
if args.recompute:
    transformer.enable_gradient_checkpointing()
optimiser = torch.optim.AdamW(trained, lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4)

config = transformer.config
scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
side = args.resolution // scale_factor
if args.resolution % (scale_factor * config.patch_size):
    sys.exit(f"--resolution must be a multiple of {scale_factor * config.patch_size}")
picture_tokens = (side // config.patch_size) ** 2

scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(args.model, subfolder="scheduler")
scheduler.set_timesteps(STEPS)
sigmas = scheduler.sigmas.float().to(device)


def flop_parts():
    """Those of one forward on one row, by the formula above."""
    n, t, d, p = picture_tokens, args.text_length, transformer.inner_dim, config.patch_size
    products = 2 * n * p * p * config.in_channels * d + 2 * t * config.joint_attention_dim * d
    products += 2 * (256 * d + d * d) + 2 * (config.pooled_projection_dim * d + d * d)
    attention = 0
    for i in range(config.num_layers):
        last, dual = i == config.num_layers - 1, i in config.dual_attention_layers
        products += 2 * (9 if dual else 6) * d * d + 2 * (2 if last else 6) * d * d
        products += 2 * 3 * (n + t) * d * d + 2 * n * d * d + 2 * 8 * n * d * d
        attention += 4 * (n + t) ** 2 * d
        if not last:
            products += 2 * t * d * d + 2 * 8 * t * d * d
        if dual:
            products += 2 * 4 * n * d * d
            attention += 4 * n * n * d
    products += 2 * 2 * d * d + 2 * n * d * p * p * transformer.out_channels
    adapters = 0
    for name, layer in transformer.named_modules():
        if hasattr(layer, "lora_A"):
            tokens = t if ".add_" in name or ".to_add_" in name else n
            adapters += 2 * args.rank * (layer.in_features + layer.out_features) * tokens
    return {"products": products, "attention": attention, "adapters": adapters}


def sde(velocity, x, step, after=None):
    """The next latents (those given, if any), their mean log-probability, the mean, the deviation before sqrt(dt)."""
    t, t_after = sigmas[step], sigmas[step + 1]
    dt = t_after - t
    s = torch.sqrt(t / (1 - (sigmas[1] if step == 0 else t))) * NOISE_LEVEL
    mean = x * (1 + s**2 / (2 * t) * dt) + velocity * (1 + s**2 * (1 - t) / (2 * t)) * dt
    sd = s * torch.sqrt(-dt)
    if after is None:
        after = mean + sd * torch.randn_like(mean)
    log_prob = -((after.detach() - mean) ** 2) / (2 * sd**2) - torch.log(sd) - math.log(math.sqrt(2 * math.pi))
    return after, log_prob.mean((1, 2, 3)), mean, s


class Work:
    """The cases on a batch; `network` is the transformer or what the compiler made of it."""

    def __init__(self, network, batch):
        rows = (2 if guided else 1) * batch
        self.network = network
        self.x = torch.randn(batch, config.in_channels, side, side, device=device)
        self.time = torch.full((rows,), scheduler.timesteps[STEP].item(), device=device)
        self.text = torch.randn(rows, args.text_length, config.joint_attention_dim, device=device, dtype=dtype)
        self.pooled = torch.randn(rows, config.pooled_projection_dim, device=device, dtype=dtype)
        self.advantages = torch.randn(batch, device=device).clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)
        self.rollout = self.ratio = self.loss = None

    def velocity(self):
        x = torch.cat([self.x] * 2) if guided else self.x
        with torch.autocast(device, dtype) if use_autocast else contextlib.nullcontext():
            out = self.network(
                hidden_states=x.to(dtype), timestep=self.time, encoder_hidden_states=self.text, pooled_projections=self.pooled,
                return_dict=False,
            )[0].float()
        if not guided:
            return out
        without, given = out.chunk(2)
        return without + args.guidance * (given - without)

    @torch.no_grad()
    def denoise(self):
        return sde(self.velocity(), self.x, STEP)[:2]

    def transition(self):
        if self.rollout is None:
            self.rollout = self.denoise()
        after, old_log_prob = self.rollout
        _, log_prob, mean, s = sde(self.velocity(), self.x, STEP, after)
        with torch.no_grad(), policy.disable_adapter():
            _, _, reference_mean, _ = sde(self.velocity(), self.x, STEP, after)
        ratio = torch.exp(log_prob - old_log_prob)
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        policy_loss = torch.maximum(-self.advantages * ratio, -self.advantages * clipped).mean()
        kl = (((mean - reference_mean) ** 2).mean((1, 2, 3)) / (2 * s**2)).mean()
        loss = policy_loss + BETA * kl
        loss.backward()
        self.ratio, self.loss = ratio.detach(), loss.detach()

    def update(self):
        torch.nn.utils.clip_grad_norm_(trained, GRADIENT_CLIP)
        optimiser.step()
        optimiser.zero_grad()

    @torch.no_grad()
    def decode(self):
        return vae.decode((self.x / vae.config.scaling_factor + vae.config.shift_factor).to(dtype), return_dict=False)[0]


def timed(case):
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    case()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None


def measure(work, names):
    """Runs the cases one after the other, again and again; also the seconds of the first round, which compiles."""
    first, runs = 0.0, {name: [] for name in names}
    for i in range(WARM_UP + args.repetitions):
        for name in names:
            run = timed(getattr(work, name))
            if i >= WARM_UP:
                runs[name].append(run)
            elif i == 0:
                first += run[0]
        if i == 0 and work.ratio is not None:
            say(f"    first transition: loss {work.loss.item():.3e}, ratio off 1 by {(work.ratio - 1).abs().max().item():.1e}")
            if not work.loss.isfinite():
                sys.exit("the loss is not finite")
    found = {}
    for name, of_case in runs.items():
        seconds, peaks = zip(*of_case)
        found[name] = {
            "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds),
            "peak_mib": round(max(peaks)) if on_gpu else None,
        }
        say(f"    {name}: {found[name]}")
    return found, first


def out_of_memory(error):
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text for words in ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    )


def attempt(network, batch, names):
    try:
        return measure(Work(network, batch), names)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        say(f"    {', '.join(names)}: out of memory")
    return {name: None for name in names}, None


def clear():
    optimiser.zero_grad()
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()


cases, compilations = {}, {}
for mode in ["eager"] + ["compiled"] * args.compile:
    cases[mode] = {}
    groups = [("denoise",), ("transition", "update")] + [("decode",)] * (mode == "eager")
    for batch in args.batch:
        say(f"{mode}, batch {batch}")
        network = transformer
        if mode == "compiled":
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            # Past the limit it would go on uncompiled without a word.
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            network = torch.compile(transformer, dynamic=False)
        found, first_rounds = {}, []
        for names in groups:
            clear()
            of_group, first = attempt(network, batch, names)
            found |= of_group
            first_rounds.append(first)
        clear()
        cases[mode][str(batch)] = found if any(found.values()) else None
        if mode == "compiled":
            compilations[str(batch)] = {
                "first_rounds_seconds": first_rounds, "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
            }

parts = flop_parts()
print(json.dumps({
    "versions": {"python": sys.version.split()[0], "cuda": torch.version.cuda} | {
        module.__name__: module.__version__ for module in (torch, diffusers, peft, transformers, accelerate, numpy, safetensors)
    },
    "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
    "settings": {
        "resolution": args.resolution, "picture_tokens": picture_tokens, "text_length": args.text_length,
        "precision": args.precision, "autocast": use_autocast, "tf32": on_gpu and not args.no_tf32,
        "recompute": args.recompute, "guidance": args.guidance, "rows_per_sample": 2 if guided else 1,
        "rank": args.rank, "alpha": args.alpha, "trained_parameters": sum(p.numel() for p in trained),
        "base_parameters": sum(p.numel() for p in transformer.parameters()) - sum(p.numel() for p in trained),
        "random_weights": args.random, "repetitions": args.repetitions, "warm_up": WARM_UP, "time": sigmas[STEP].item(),
    },
    "cases": cases,
    "compile": compilations,
    "flop_per_row": parts["products"] + parts["attention"],
    "flop_parts": parts,
}))

#!/usr/bin/env python3
"""Makes `sd3-plain/`: a small random SD3-Medium style pipeline in the diffusers layout, and what diffusers computes with it.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 tokenizers==0.23.3 safetensors==0.8.0 accelerate==1.15.0 regex
    python make_sd3_plain.py OUTPUT_DIRECTORY

What it covers that a Stable Diffusion 3.5 model does not: no query/key norm, no dual attention, no T5 (zeros stand in for it), weights in bf16
and f16, a transformer in several shards, tokenizers as `vocab.json` + `merges.txt` only, `eos_token_id: 2` in the CLIP configurations, and a
picture that is not square. All reference numbers are computed in f32 on the CPU from the stored (rounded) weights.
"""

import json
import math
import pathlib
import shutil
import sys

import diffusers
import regex
import tokenizers
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from make_sd3_single_file import stored

SEED = 20261125
DATE = "2026-11-25"
HEIGHT, WIDTH = 24, 40
MAX_SEQUENCE_LENGTH = 20
GUIDANCE, STEPS = 3.0, 3
TIMESTEPS = [812.5, 143.25]
VOCABULARY = 600

PROMPTS = [
    "A Red Cube,  and 2 Blue Balls at the Caf\u00e9 \U0001f642! Isn't it 1975?",
    "a very long prompt: "
    + ", ".join(
        f"{n} {colour} {thing}"
        for n, colour, thing in zip(
            range(7, 40),
            ["red", "blue", "green", "yellow", "purple", "orange"] * 6,
            ["cubes", "balls", "cats", "dogs", "houses"] * 7,
        )
    ),
]
NEGATIVE = ""
# Only for the tokenizers.
TEXTS = [
    "",
    "  leading and trailing  ",
    "cafe\u0301",
    "caf\u00e9",
    "HELLO!!! 12345",
    "na\u00efve Stra\u00dfe \u2014 \u6771\u4eac",
    "it's they're we'll I'd",
    "tab\tnew\nline\u00a0nbsp",
    "under_score #hash @at 50% $3.99",
    "\U0001f642\u200d\U0001f642 \u2615\ufe0f",
    "!",
    "cat!cat! (cat) ...!",
    "a<|endoftext|>b <|StartOfText|> c",
]
CORPUS = """
a photo of a cat. a photo of a dog. a photo of two red cubes left of a blue ball. three green balls, and one yellow house!
the cat is on the house. the dog is at the cafe. a red cube and a blue cube and a green cube. isn't it a nice photo?
one orange cat, two purple dogs, three yellow balls. the words "hello world" on a sign at the caf\u00e9. it's the year 1975.
an orange house in the rain; a purple ball under the red sign. very long words, very small cats. the caf\u00e9 and the cr\u00eape.
"""


# The tokenizer: CLIP's byte-level BPE, trained here on a few sentences.


def byte_alphabet():
    """The printable character that stands for each byte, in the order in which CLIP numbers them."""
    first = list(range(ord("!"), ord("~") + 1)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    rest = [byte for byte in range(256) if byte not in first]
    characters = [chr(byte) for byte in first] + [chr(256 + index) for index in range(len(rest))]
    return dict(zip(first + rest, characters))


ALPHABET = byte_alphabet()
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def split_words(text):
    text = regex.sub(r"\s+", " ", regex.sub("e\u0301", "\u00e9", text)).lower()
    return [[ALPHABET[byte] for byte in word.encode()] for word in WORDS.findall(text)]


def join_pair(word, pair):
    joined, at = [], 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            joined.append(word[at] + word[at + 1])
            at += 2
        else:
            joined.append(word[at])
            at += 1
    return joined


def train_bpe():
    words = [word[:-1] + [word[-1] + "</w>"] for word in split_words(CORPUS)]
    vocabulary = list(ALPHABET.values()) + [character + "</w>" for character in ALPHABET.values()]
    merges = []
    while len(vocabulary) < VOCABULARY - 2:
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        vocabulary.append("".join(pair))
        words = [join_pair(word, pair) for word in words]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(vocabulary)) == len(vocabulary) == VOCABULARY
    return {token: index for index, token in enumerate(vocabulary)}, merges


def plain_bpe(text, vocabulary, merges):
    """An independent encoder, without special tokens, to check the tokenizer against."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = []
    for word in split_words(text):
        word = word[:-1] + [word[-1] + "</w>"]
        while len(word) > 1:
            pair = min(zip(word, word[1:]), key=lambda pair: ranks.get(pair, math.inf))
            if pair not in ranks:
                break
            word = join_pair(word, pair)
        ids += [vocabulary[token] for token in word]
    return ids


def write_tokenizer(directory, vocabulary, merges, pad):
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2"] + [" ".join(pair) for pair in merges]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def token(content, normalized):
        return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}

    start, end = "<|startoftext|>", "<|endoftext|>"
    added = {str(vocabulary[text]): {**token(text, True), "special": True} for text in (start, end)}
    if pad != end:
        added = {str(vocabulary[pad]): {**token(pad, False), "special": True}, **added}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": start,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": end,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": end,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {"bos_token": token(start, True), "eos_token": token(end, True), "pad_token": pad, "unk_token": token(end, True)}
    (directory / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


# The weights.


def randomise(module, generator, gain=1.0, peaky=1.0):
    """Random values for every parameter: none is left at zero or one, and the queries and keys make attention uneven."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embedding.weight" in name:
                noise = noise * 0.6
            elif parameter.ndim == 1 and name.endswith("weight"):
                noise = 1 + 0.2 * noise
            elif parameter.ndim == 1:
                noise = 0.15 * noise
            else:
                scale = gain / math.sqrt(parameter[0].numel())
                if any(part in name for part in ("to_q", "to_k", "add_q", "add_k", "q_proj", "k_proj")):
                    scale *= peaky
                noise = noise * scale
            parameter.copy_(noise)


def make_pipeline(directory, generator):
    vocabulary, merges = train_bpe()
    end = vocabulary["<|endoftext|>"]
    assert end == max(vocabulary.values())
    scratch = directory / "scratch"
    write_tokenizer(scratch / "tokenizer", vocabulary, merges, "<|endoftext|>")
    write_tokenizer(scratch / "tokenizer_2", vocabulary, merges, "!")

    def clip(hidden, heads, layers, projection, act):
        config = CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=2 * hidden + 8,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=projection,
            max_position_embeddings=77,
            hidden_act=act,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        )
        model = CLIPTextModelWithProjection(config)
        randomise(model, generator, peaky=1.5)
        return model.to(torch.float16).eval()

    text_encoder = clip(24, 3, 3, 20, "quick_gelu")
    text_encoder_2 = clip(32, 2, 2, 36, "gelu")
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=64,
        caption_projection_dim=48,
        pooled_projection_dim=20 + 36,
        pos_embed_max_size=16,
        dual_attention_layers=(),
        qk_norm=None,
    )
    randomise(transformer, generator, peaky=1.5)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 12),
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    randomise(vae, generator)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.to(torch.bfloat16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae.to(torch.float16),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(scratch / "tokenizer"),
        text_encoder_2=text_encoder_2,
        tokenizer_2=CLIPTokenizer.from_pretrained(scratch / "tokenizer_2"),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(directory)
    shutil.rmtree(directory / "transformer")
    pipeline.transformer.save_pretrained(directory / "transformer", max_shard_size="130KB")
    assert (directory / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    assert len(list((directory / "transformer").glob("*.safetensors"))) >= 3
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(directory / name)
        shutil.move(scratch / name, directory / name)
    shutil.rmtree(scratch)
    return vocabulary, merges


# The goldens.


@torch.no_grad()
def make_goldens(directory, vocabulary, merges, generator):
    # diffusers wants the absence of T5 said twice, although model_index.json says it.
    pipe = StableDiffusion3Pipeline.from_pretrained(directory, text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for name, dtype in (("transformer", torch.bfloat16), ("vae", torch.float16), ("text_encoder", torch.float16), ("text_encoder_2", torch.float16)):
        state, file = getattr(pipe, name).state_dict(), stored(directory / name)
        assert state.keys() == file.keys(), name
        for key in state:
            assert file[key].dtype == dtype and state[key].dtype == torch.float32, (name, key)
            assert torch.equal(state[key], file[key].float()), (name, key)
    assert pipe.text_encoder_3 is None and pipe.tokenizer_3 is None
    assert pipe.text_encoder.config.eos_token_id == pipe.text_encoder_2.config.eos_token_id == 2

    def ids(tokenizer, texts):
        return tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids

    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    for text in PROMPTS + TEXTS:
        if "<|" in text:
            continue
        body = plain_bpe(text, vocabulary, merges)[:75]
        expected = [start] + body + [end] * (76 - len(body))
        assert ids(pipe.tokenizer, [text])[0].tolist() == expected, text
        if "!" not in text:
            expected = [start] + body + [end] + [vocabulary["!"]] * (75 - len(body))
            assert ids(pipe.tokenizer_2, [text])[0].tolist() == expected, text

    arrays = {
        "clip_ids": ids(pipe.tokenizer, PROMPTS),
        "clip2_ids": ids(pipe.tokenizer_2, PROMPTS),
        "text_clip_ids": ids(pipe.tokenizer, TEXTS),
        "text_clip2_ids": ids(pipe.tokenizer_2, TEXTS),
    }
    assert not torch.equal(arrays["clip_ids"], arrays["clip2_ids"])
    assert (arrays["clip_ids"][1] == end).nonzero().tolist() == [[76]], "the second prompt is cut"

    embeds, negative_embeds, pooled, negative_pooled = pipe.encode_prompt(
        PROMPTS, None, None, negative_prompt=[NEGATIVE] * len(PROMPTS), max_sequence_length=MAX_SEQUENCE_LENGTH
    )
    # The pooled rows are the projected states at the first end of text, the largest id.
    for encoder, name, part in ((pipe.text_encoder, "clip_ids", pooled[:, :20]), (pipe.text_encoder_2, "clip2_ids", pooled[:, 20:])):
        out = encoder(arrays[name])
        at = (arrays[name] == end).int().argmax(-1)
        rows = encoder.text_projection(out.last_hidden_state[torch.arange(len(PROMPTS)), at])
        assert torch.allclose(rows, part, atol=1e-6)
    assert (embeds[:, 77:] == 0).all() and (embeds[:, :77, 56:] == 0).all()
    arrays |= {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds, "pooled": pooled, "negative_pooled": negative_pooled}

    factor = pipe.vae_scale_factor
    latents = torch.randn(len(PROMPTS), 16, HEIGHT // factor, WIDTH // factor, generator=generator)
    timestep = torch.tensor(TIMESTEPS)

    def velocity(embeds, pooled):
        return pipe.transformer(
            hidden_states=latents, timestep=timestep, encoder_hidden_states=embeds, pooled_projections=pooled, return_dict=False
        )[0]

    arrays |= {"latents": latents, "timestep": timestep, "velocity": velocity(embeds, pooled)}
    arrays["velocity_negative"] = velocity(negative_embeds, negative_pooled)

    how = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "latents": latents}
    negative = [NEGATIVE] * len(PROMPTS)
    final = pipe(PROMPTS, negative_prompt=negative, max_sequence_length=MAX_SEQUENCE_LENGTH, output_type="latent", **how).images
    arrays |= {"final_latents": final, "sigmas": pipe.scheduler.sigmas}
    vae = pipe.vae
    decoded = vae.decode(final / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    arrays |= {"decoded": decoded, "image": (decoded / 2 + 0.5).clamp(0, 1)}
    by_pipe = pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=negative_embeds,
        pooled_prompt_embeds=pooled,
        negative_pooled_prompt_embeds=negative_pooled,
        output_type="pt",
        **how,
    ).images
    assert torch.allclose(by_pipe, arrays["image"], atol=1e-5)

    y = torch.linspace(0, 1, HEIGHT)[:, None]
    x = torch.linspace(0, 1, WIDTH)[None, :]
    waves = torch.rand(len(PROMPTS), 3, 3, generator=generator)[..., None, None]
    picture = torch.sin(9 * (waves[:, :, 0] * x + waves[:, :, 1] * y) + 6 * waves[:, :, 2]) * 0.8
    picture = (picture + 0.2 * torch.randn(picture.shape, generator=generator)).clamp(-1, 1)
    posterior = vae.encode(picture).latent_dist
    arrays |= {"encode_input": picture, "encode_mean": posterior.mean, "encode_logvar": posterior.logvar}

    # Nothing is degenerate.
    v, v_negative = arrays["velocity"], arrays["velocity_negative"]
    crossed = velocity(embeds.flip(0), pooled.flip(0))
    pooled_only = velocity(embeds.flip(0), pooled)
    report = {
        "velocity std": v.std(),
        "velocity, other prompt, rms difference": (crossed - v).pow(2).mean().sqrt(),
        "velocity, other embeddings and same pooled, rms difference": (pooled_only - v).pow(2).mean().sqrt(),
        "velocity, no prompt, rms difference": (v_negative - v).pow(2).mean().sqrt(),
    }
    report |= {f"{name} std": arrays[name].std() for name in ("prompt_embeds", "pooled", "final_latents", "decoded", "encode_mean", "encode_logvar")}
    report["pixels at a bound"] = ((arrays["image"] == 0) | (arrays["image"] == 1)).float().mean()
    for name, value in report.items():
        print(f"{name}: {value:.4f}")

    arrays = {
        name: array.contiguous().to(torch.int64 if array.dtype == torch.int64 else torch.float32).clone() for name, array in arrays.items()
    }
    for name, array in arrays.items():
        assert torch.isfinite(array).all(), name
    save_file(arrays, directory / "golden.safetensors")
    about = {
        "made_with": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "date": DATE,
        "seed": SEED,
        "prompts": PROMPTS,
        "negative": NEGATIVE,
        "texts": TEXTS,
        "guidance_scale": GUIDANCE,
        "steps": STEPS,
        "height": HEIGHT,
        "width": WIDTH,
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "vae_scale_factor": factor,
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "note": "latents are the initial noise of final_latents; velocity is the transformer at `timestep` on `latents` with the positive prompt, "
        "velocity_negative the same with the negative one; decoded is the VAE output of final_latents before clamping to [0,1], image after it; "
        "text_clip_ids and text_clip2_ids are the ids of `texts`. Everything was computed in f32 from the stored bf16 and f16 weights.",
    }
    (directory / "golden.json").write_text(json.dumps(about, indent=1, ensure_ascii=True) + "\n")


def main():
    directory = pathlib.Path(sys.argv[1])
    if directory.exists():
        raise SystemExit(f"{directory} exists already")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    vocabulary, merges = make_pipeline(directory, generator)
    make_goldens(directory, vocabulary, merges, generator)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{size} bytes")


if __name__ == "__main__":
    main()

"""A tiny CLIP in the layouts of transformers and OpenCLIP, and what their own code computes with it.

    python make.py TOKENIZERS HPSV2 OUTPUT

TOKENIZERS is tests/golden/sd3-plain, HPSV2 the folder src/open_clip of the package hpsv2. See README.md.
"""

import importlib
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import open_clip
import PIL
import torch
import torchvision
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SEED = 20261126
SIDE = 32
PROJECTION = 20
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
# Height and width.
SIZES = [(1, 1), (1, 7), (5, 3), (17, 33), (32, 32), (31, 32), (32, 47), (64, 64), (33, 65), (100, 75),
         (75, 100), (96, 129), (127, 224), (224, 224), (223, 225), (224, 301), (512, 512), (480, 641), (767, 1023), (3, 640)]
SCORED = [3, 5, 8, 10, 11, 17]
PROMPTS = [
    "a red cube on a blue sphere", "A Photo, of a  CAT's hat!", "", "a",
    "a castle of ice in the north, with many towers and bridges and a hundred thousand windows, by a painter who loved the sea "
    "and the storm and the old ships that never came home again, in the style of a copper engraving, very detailed, award winning",
    "a red cube on a blue sphere",
]


def picture(index):
    """A picture from integer arithmetic: smooth waves and noise in a chessboard."""
    height, width = SIZES[index]
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    smooth = ((x * x * 3 + y * y * 5 + x * y * 7) // 64 + c * 85) % 256
    noise = ((x * 7919 + y * 104729 + c * 15485863 + index * 32452843) * 2654435761 % 2**32) >> 24
    return np.where((x // 8 + y // 8 + index) % 2 == 0, smooth, noise).astype(np.uint8)


def digest(values):
    """FNV-1a of 64 bits."""
    hash = 0xCBF29CE484222325
    for byte in values.tobytes():
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    return f"{hash:016x}"


def hps_transform(folder, size):
    """The preprocessing of HPSv2, from its own file."""
    package = types.ModuleType("hps")
    package.__path__ = [folder]
    sys.modules["hps"] = package
    return importlib.import_module("hps.transform").image_transform(size, is_train=False, mean=MEAN, std=STD, resize_longest_max=True)


def bicubic_square(pixels, size, half):
    """Pillow's resize of the shortest side and a crop of the centre, in 8 bits."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    to = [int(size * side / short) for side in (height, width)]
    resized = np.asarray(Image.fromarray(pixels).resize((to[1], to[0]), Image.Resampling.BICUBIC))
    top, left = [half(side - size) for side in to]
    return resized[top : top + size, left : left + size]


def make_preprocess(hpsv2, output):
    cases, arrays, worst = [], {}, 0.0
    for index, (height, width) in enumerate(SIZES):
        pixels = picture(index)
        case = {"height": height, "width": width}
        for size in (SIDE, 224):
            floor = bicubic_square(pixels, size, lambda margin: margin // 2)
            even = bicubic_square(pixels, size, lambda margin: round(margin / 2))
            case[f"crop_{size}"], case[f"even_{size}"] = digest(floor), digest(even)
            # The same by transformers and by torchvision, as OpenCLIP composes it.
            settings = dict(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
            unit = dict(image_mean=[0.0] * 3, image_std=[1.0] * 3)
            theirs = CLIPImageProcessorPil(**settings, **unit)(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
            assert np.abs(theirs.transpose(1, 2, 0) - floor / 255).max() < 1e-6, index
            compose = torchvision.transforms.Compose([
                torchvision.transforms.Resize(size, interpolation=torchvision.transforms.InterpolationMode.BICUBIC),
                torchvision.transforms.CenterCrop(size),
            ])
            assert (np.asarray(compose(Image.fromarray(pixels))) == even).all(), index
            fast = transformers.CLIPImageProcessor(**settings, **unit)(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
            worst = max(worst, float(np.abs(fast.transpose(1, 2, 0) * 255 - floor).max()))
        # HPSv2 fails on sides that round to 0, and does not pad where the longer side has the size.
        for size, step in ((SIDE, 1), (224, 17)):
            if max(height, width) == size and height != width or min(height, width) * size / max(height, width) < 0.5:
                continue
            padded = hps_transform(hpsv2, size)(Image.fromarray(pixels))
            assert padded.shape == (3, size, size)
            arrays[f"pad_{size}.{index}"] = padded[:, ::step, ::step].contiguous()
        cases.append(case)
    print("the tensor code of transformers is within", worst, "of Pillow, in units of 1/255")
    text = json.dumps({"cases": cases, "pad_step_224": 17}, indent=1)
    (output / "preprocess.json").write_text(text + "\n")
    save_file(arrays, output / "preprocess.safetensors")


def randomise(model, generator):
    """Weights of std 1/sqrt(inputs), biases of 0.2, scales of norms around 1 by 0.3."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = any(part in name for part in ("layer_norm", "layernorm", "layrnorm", "ln_"))
        if name == "logit_scale":
            noise = torch.tensor(3.1)
        elif parameter.ndim == 1:
            noise = 1 + 0.3 * noise if norm and name.endswith("weight") else 0.2 * noise
        elif "embedding" not in name or "patch" in name:
            noise = noise / parameter[0].numel() ** 0.5
        parameter.data.copy_(noise)
    return model.eval()


def sizes(vocabulary, eos, activation):
    text = dict(hidden_size=16, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, vocab_size=vocabulary,
                hidden_act=activation, bos_token_id=vocabulary - 2, eos_token_id=eos, pad_token_id=1, layer_norm_eps=1e-5)
    vision = dict(hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=3, image_size=SIDE, patch_size=8,
                  hidden_act=activation, layer_norm_eps=1e-5)
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)


class Aesthetic(nn.Module):
    """The head of christophschuhmann/improved-aesthetic-predictor, with other sizes."""

    def __init__(self, inputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, 24), nn.Dropout(0.2), nn.Linear(24, 12), nn.Dropout(0.2),
            nn.Linear(12, 8), nn.Dropout(0.1), nn.Linear(8, 4), nn.Linear(4, 1),
        )

    def forward(self, x):
        return self.layers(x)


def unit(x):
    return x / x.norm(p=2, dim=-1, keepdim=True)


def make_transformers(tokenizers, output, generator, arrays):
    directory = output / "transformers"
    shutil.copytree(tokenizers / "tokenizer", directory, dirs_exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    vocabulary = len(json.loads((directory / "vocab.json").read_text()))
    word = tokenizer.convert_tokens_to_ids("a</w>")
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    pixels = processor([Image.fromarray(picture(index)) for index in SCORED], return_tensors="pt")["pixel_values"]
    tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    arrays["pixels"], arrays["ids"] = pixels, tokens.input_ids.float()
    state = None
    for activation in ("quick_gelu", "gelu"):
        for name, eos in (("legacy", 2), ("first", word)):
            model = CLIPModel(sizes(vocabulary, eos, activation))
            if state is None:
                state = randomise(model, generator).state_dict()
            model.load_state_dict(state)
            with torch.no_grad():
                out = model.eval()(**tokens, pixel_values=pixels)
                arrays[f"text.{activation}.{name}"] = model.get_text_features(**tokens).pooler_output
                arrays[f"image.{activation}"] = model.get_image_features(pixel_values=pixels).pooler_output
                arrays[f"clipscore.{activation}.{name}"] = out.logits_per_image.diag() / model.logit_scale.exp()
                # pickscore_scorer.py of yifan123/flow_grpo.
                arrays[f"pickscore.{activation}.{name}"] = (model.logit_scale.exp() * out.text_embeds @ out.image_embeds.T).diag() / 26
    head = randomise(Aesthetic(PROJECTION), generator)
    with torch.no_grad():
        arrays["aesthetic"] = head(unit(arrays["image.quick_gelu"])).squeeze(1)
    config = sizes(vocabulary, 2, "quick_gelu").to_dict()
    (directory / "config.json").write_text(json.dumps({**config, "architectures": ["CLIPModel"]}, indent=1) + "\n")
    processor.save_pretrained(directory)
    save_file({name: value.contiguous() for name, value in state.items()}, directory / "model.safetensors", {"format": "pt"})
    save_file(head.state_dict(), directory / "sac+logos+ava1-l14-linearMSE.safetensors")
    return word


def make_open_clip(tokenizers, hpsv2, output, generator, arrays):
    directory = output / "open_clip"
    shutil.copytree(tokenizers / "tokenizer_2", directory, dirs_exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    vocabulary = len(json.loads((directory / "vocab.json").read_text()))
    vision = dict(image_size=SIDE, layers=3, width=24, head_width=8, patch_size=8)
    text = dict(context_length=77, vocab_size=vocabulary, width=16, heads=2, layers=3)
    pictures = [Image.fromarray(picture(index)) for index in SCORED]
    square = torchvision.transforms.Compose([
        open_clip.image_transform(SIDE, is_train=False, mean=tuple(MEAN), std=tuple(STD)),
    ])
    padded = hps_transform(hpsv2, SIDE)
    for name in ("pad", "even"):
        transform = padded if name == "pad" else square
        # Neither of them pads a picture whose longer side has the size already.
        arrays[f"open_clip.pixels.{name}"] = torch.stack([transform(picture) for picture in pictures if max(picture.size) != SIDE])
    arrays["open_clip.ids"] = ids.float()
    state = None
    for activation in ("gelu", "quick_gelu"):
        model = CLIP(PROJECTION, CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=activation == "quick_gelu", output_dict=True)
        if state is None:
            state = randomise(model, generator).state_dict()
        model.load_state_dict(state)
        kept = [row for row, picture in enumerate(pictures) if max(picture.size) != SIDE]
        with torch.no_grad():
            arrays[f"open_clip.text.{activation}"] = model.encode_text(ids)
            for name in ("pad", "even"):
                pixels = arrays[f"open_clip.pixels.{name}"]
                arrays[f"open_clip.image.{activation}.{name}"] = model.encode_image(pixels)
                # img_score.py of tgxs002/HPSv2.
                outputs = model.eval()(pixels, ids[kept])
                scores = torch.diagonal(outputs["image_features"] @ outputs["text_features"].T)
                arrays[f"hpsv2.{activation}.{name}"] = scores
    config = {
        "model_cfg": {"embed_dim": PROJECTION, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (directory / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({name: value.contiguous() for name, value in state.items()}, directory / "HPS_v2.1_compressed.safetensors")
    return kept


def main():
    tokenizers, hpsv2, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    make_preprocess(hpsv2, output)
    arrays = {}
    word = make_transformers(tokenizers, output, generator, arrays)
    kept = make_open_clip(tokenizers, hpsv2, output, generator, arrays)
    about = {"prompts": PROMPTS, "scored": SCORED, "scored_open_clip": kept, "first_eos": word, "side": SIDE, "projection": PROJECTION}
    (output / "golden.json").write_text(json.dumps(about, indent=1) + "\n")
    save_file({name: value.contiguous() for name, value in arrays.items()}, output / "golden.safetensors")
    for module in (torch, torchvision, transformers, open_clip, PIL, np):
        print(module.__name__, module.__version__)
    for name, value in arrays.items():
        print(name, tuple(value.shape), value.flatten()[:4].tolist())


main()

"""Logits of GenEval's ten colours on crops, by transformers with the tiny CLIP of ../clip-tiny.

    python make.py ../clip-tiny/transformers golden.json

See README.md.
"""

import json
import sys
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
TEMPLATES = ["a photo of a {c} {k}", "a photo of a {c}-colored {k}", "a photo of a {c} object"]
GREY = "#999999"
# Index and size of the picture, class, box, and the mask: none, or an ellipse in the box.
CASES = [
    (11, (96, 129), "bench", (10.0, 20.0, 90.0, 80.0), None),
    (11, (96, 129), "bench", (10.4, 20.5, 70.5, 80.6), "ellipse"),
    (11, (96, 129), "computer mouse", (0.0, 0.0, 129.0, 96.0), "ellipse"),
    (9, (100, 75), "fire hydrant", (30.2, 10.0, 41.0, 97.5), None),
    (9, (100, 75), "fire hydrant", (60.0, 40.0, 80.0, 110.0), None),
]


def picture(index, height, width):
    """The picture of ../clip-tiny/make.py."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    smooth = ((x * x * 3 + y * y * 5 + x * y * 7) // 64 + c * 85) % 256
    noise = ((x * 7919 + y * 104729 + c * 15485863 + index * 32452843) * 2654435761 % 2**32) >> 24
    return np.where((x // 8 + y // 8 + index) % 2 == 0, smooth, noise).astype(np.uint8)


def ellipse(height, width, box):
    """True inside the ellipse that touches the sides of the box."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[0:height, 0:width]
    return ((2 * x + 1 - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y + 1 - y0 - y1) / (y1 - y0)) ** 2 <= 1


def runs(mask):
    """Lengths of runs down the columns, beginning with False."""
    counts, value, length = [], False, 0
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return counts + [length]


def compressed(counts):
    """COCO's text of a list of runs: differences to the run before the last, five bits a letter."""
    text = ""
    for index, count in enumerate(counts):
        x = int(count) - (int(counts[index - 2]) if index > 2 else 0)
        more = True
        while more:
            bits = x & 0x1F
            x >>= 5
            more = x != -1 if bits & 0x10 else x != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def main():
    directory, output = sys.argv[1:]
    model = CLIPModel.from_pretrained(directory).eval()
    tokenizer = CLIPTokenizer.from_pretrained(directory)
    processor = CLIPImageProcessorPil.from_pretrained(directory)
    cases = []
    for index, (height, width), name, box, shape in CASES:
        image = Image.fromarray(picture(index, height, width))
        case = {"picture": index, "height": height, "width": width, "class": name, "box": box}
        if shape is not None:
            mask = ellipse(height, width, box)
            image = Image.composite(image, Image.new("RGB", image.size, GREY), Image.fromarray(mask))
            case["mask"] = {"size": [height, width], "counts": runs(mask)}
            case["compressed"] = compressed(runs(mask))
        crop = image.crop(box)
        with torch.no_grad():
            vectors = []
            for color in COLORS:
                texts = [template.format(c=color, k=name) for template in TEMPLATES]
                tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
                vectors.append(unit(unit(model.get_text_features(**tokens).pooler_output).mean(0)))
            pixels = processor([crop], return_tensors="pt")["pixel_values"]
            feature = unit(model.get_image_features(pixel_values=pixels).pooler_output)[0]
            logits = 100 * torch.stack(vectors) @ feature
        case["crop"] = [crop.height, crop.width]
        case["logits"] = [round(float(logit), 6) for logit in logits]
        case["color"] = COLORS[int(logits.argmax())]
        cases.append(case)
        print(name, case["crop"], case["color"], case["logits"])
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__}
    Path(output).write_text(json.dumps({"versions": versions, "cases": cases}) + "\n")


main()

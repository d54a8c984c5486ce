"""Makes the goldens of the crate `ocr`: sheet.png, expected.json and steps.json.

Usage: python make_ocr.py MODELS FONTS, where MODELS has detector.onnx and recogniser.onnx (assets/ocr)
and FONTS has the DejaVu fonts. Versions are in README.md.
"""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pipeline
from pipeline import PADDLE_2_9, PP_OCR_V6, Pipeline

HERE = Path(__file__).parent
WORDS = """CAT STOP Hello OPEN Rust love 2026 flow exit milk Paris Burn Cafe WELCOME sale 50% tea fresh
New York bread Books Zoo River 42 Music garden hotel Price $9.99 Happy lamp night quick brown fox""".split()
FACES = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf",
         "DejaVuSansCondensed-Bold.ttf"]
SIZES = [((32, 32), 30), ((48, 48), 25), ((64, 64), 35), ((96, 96), 22), ((128, 128), 24), ((160, 64), 16),
         ((64, 160), 8), ((256, 256), 18), ((320, 200), 8), ((512, 512), 14)]
STYLES = ["word", "word", "word", "two lines", "two words", "tilted", "upright", "empty"]


def fitting_font(fonts, draw, text, width, height, choice):
    face, size = choice.choice(FACES), int(height)
    while size > 9 and draw.textlength(text, font=ImageFont.truetype(fonts + face, size)) > width:
        size -= 1
    return ImageFont.truetype(fonts + face, size)


def render(fonts, size, style, choice):
    width, height = size
    dark = choice.random() < 0.3
    shade = lambda low, high: tuple(choice.randrange(low, high) for _ in range(3))
    back, ink = (shade(0, 70), shade(180, 256)) if dark else (shade(185, 256), shade(0, 90))
    image = Image.new("RGB", size, back)
    if style == "empty":
        return image
    if style in ("tilted", "upright"):
        angle = 90 if style == "upright" else choice.uniform(-25, 25)
        layer = Image.new("L", size, 0)
        write(fonts, layer, choice.choice(WORDS), 255, (0.3, 0.5), choice)
        turned = layer.rotate(angle, Image.Resampling.BICUBIC)
        image.paste(Image.new("RGB", size, ink), (0, 0), turned)
    elif style == "two lines":
        write(fonts, image, choice.choice(WORDS), ink, (0.05, 0.1), choice, 0.32)
        write(fonts, image, choice.choice(WORDS), ink, (0.52, 0.6), choice, 0.32)
    else:
        text = choice.choice(WORDS) if style == "word" else " ".join(choice.sample(WORDS, 2))
        write(fonts, image, text, ink, (0.05, 0.5), choice)
    return image


def write(fonts, image, text, ink, band, choice, largest=0.45):
    width, height = image.size
    draw = ImageDraw.Draw(image)
    share = choice.uniform(0.5 if width > 200 else 0.8, 0.95)
    font = fitting_font(fonts, draw, text, width * share, height * largest, choice)
    left = choice.uniform(0.02, 0.98 - draw.textlength(text, font=font) / width)
    draw.text((max(1, left * width), choice.uniform(*band) * height), text, font=font, fill=ink)


def pack(images, width=1024):
    """Places on a sheet, row by row."""
    places, x, y, row = [], 0, 0, 0
    for image in images:
        if x + image.width > width:
            x, y, row = 0, y + row, 0
        places.append((x, y))
        x, row = x + image.width, max(row, image.height)
    sheet = Image.new("RGB", (width, y + row))
    for image, place in zip(images, places):
        sheet.paste(image, place)
    return sheet, places


def lines(found):
    return [{"text": text, "score": round(score, 6), "polygon": polygon} for text, score, polygon in found]


def readings(models, images, places):
    cases = []
    for image, (x, y) in zip(images, places):
        rgb = np.asarray(image)
        read = lambda options: lines(models.read(rgb, options))
        cases.append({"x": x, "y": y, "width": image.width, "height": image.height, "pp_ocr_v6": read(PP_OCR_V6),
                      "paddle_2_9": read(PADDLE_2_9), "swapped": read(replace(PP_OCR_V6, swap_channels=True))})
    return cases


def networks(models, images, cases):
    """Outputs of the networks: every second pixel of two maps, the five best labels of four lines."""
    maps, labels = [], []
    chosen = [i for i, case in enumerate(cases) if case["pp_ocr_v6"] and case["width"] <= 128]
    for index in chosen[:: len(chosen) // 4][:4]:
        bgr = np.ascontiguousarray(np.asarray(images[index])[:, :, ::-1])
        if len(maps) < 2:
            probability = models.probability(bgr, PP_OCR_V6)[::2, ::2]
            maps.append({"image": index, "numbers": [round(float(p), 6) for p in probability.ravel()]})
        output = models.logits(bgr, 320)
        best = np.argsort(-output, axis=1, kind="stable")[:, :5]
        labels.append({"image": index, "labels": best.tolist(),
                       "numbers": np.take_along_axis(output, best, 1).round(6).tolist()})
    return {"maps": maps, "labels": labels}


def steps(seed):
    """Single steps of OpenCV and Clipper on random data."""
    random_ = np.random.default_rng(seed)
    noise = lambda h, w: random_.integers(0, 256, (h, w, 3), dtype=np.uint8)
    resizes, crops, boxes = [], [], []
    for h, w, to_h, to_w in [(5, 7, 9, 12), (9, 12, 5, 7), (8, 12, 4, 6), (3, 4, 3, 4), (1, 1, 4, 3), (2, 9, 48, 5), (13, 6, 32, 32)]:
        image = noise(h, w)
        resizes.append({"size": [w, h], "to": [to_w, to_h], "from": image.ravel().tolist(),
                        "pixels": cv2.resize(image, (to_w, to_h)).ravel().tolist()})
    image = noise(20, 24)
    for case in range(12):
        centre, angle = random_.uniform(6, 16, 2), random_.uniform(-0.6, 0.6) if case else 0
        half = np.array([random_.uniform(3, 9), random_.uniform(3, 9)])
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = np.clip(np.round(centre + square @ turn), 0, [23, 19]).astype(np.float32)
        flat = pipeline.crop(image, corners)
        crops.append({"corners": corners.tolist(), "size": [flat.shape[1], flat.shape[0]], "pixels": flat.ravel().tolist()})
    while len(boxes) < 40:
        blurred = cv2.GaussianBlur(random_.random((28, 36), dtype=np.float32), (0, 0), 2.5 if len(boxes) % 2 else 1.2)
        byte = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        field, threshold = byte.astype(np.float32) / np.float32(255), float(np.quantile(byte, 0.75) + 0.5) / 255
        contours, _ = cv2.findContours((field > threshold).astype(np.uint8) * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        outlines = []
        for contour in contours:
            box, side = pipeline.rectangle(contour)
            if side >= 3:
                grown, grown_side = pipeline.rectangle(pipeline.unclip(box, 1.5))
                outlines.append({"box": box.tolist(), "side": side, "mean": pipeline.score(field, box),
                                 "grown": grown.tolist(), "grown_side": grown_side})
        boxes.append({"threshold": threshold, "field": byte.ravel().tolist(), "outlines": outlines})
    return {"resizes": resizes, "crop_from": image.ravel().tolist(), "crops": crops, "boxes": boxes}


def main():
    models, fonts, choice = Pipeline(sys.argv[1]), sys.argv[2].rstrip("/") + "/", random.Random(20261126)
    images = [render(fonts, size, STYLES[i % len(STYLES)], choice) for size, count in SIZES for i in range(count)]
    assert len(images) == 200
    sheet, places = pack(images)
    sheet.save(HERE / "sheet.png", optimize=True)
    cases = readings(models, images, places)
    write_json = lambda name, value: (HERE / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")
    expected = {"images": cases, "networks": networks(models, images, cases)}
    write_json("expected.json", expected)
    write_json("steps.json", steps(20261126))


main()

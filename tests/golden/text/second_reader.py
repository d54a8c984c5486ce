"""Scores sampled pictures of the text task with Tesseract, a reader that no run is trained on.

    python3 second_reader.py PICTURES PROMPTS

PICTURES is a directory of `sample --output`, one picture for each line of PROMPTS. Prints a line for
each picture and the mean of the reward of `crates/ocr/src/reward.rs`. Needs pillow and the program
`tesseract`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TIMES = 8


def read(path):
    """The text of a picture, enlarged eight times, as one word."""
    image = Image.open(path).convert("L")
    image = image.resize((TIMES * image.width, TIMES * image.height), Image.Resampling.BICUBIC)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        image.save(file.name)
        command = ["tesseract", file.name, "-", "--psm", "8", "--dpi", "150"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "".join(out.split())


def distance(a, b):
    """The Levenshtein distance of two texts."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(above + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def reward(text, target):
    """The text-rendering reward."""
    text, target = text.lower(), target.lower()
    if target in text:
        return 1.0
    return 1.0 - min(distance(text, target), len(target)) / len(target)


def main():
    pictures = sorted(Path(sys.argv[1]).glob("*.png"))
    targets = [line.split('"')[1] for line in Path(sys.argv[2]).read_text().splitlines() if line]
    if len(pictures) != len(targets):
        sys.exit(f"{len(pictures)} pictures for {len(targets)} prompts")
    rewards = []
    for picture, target in zip(pictures, targets):
        text = read(picture)
        rewards.append(reward(text, target))
        print(f"{picture.name} {target} {text or '-'} {rewards[-1]:.2f}")
    print(f"mean {sum(rewards) / len(rewards):.4f} of {len(rewards)} pictures")


main()

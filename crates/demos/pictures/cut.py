"""Cuts the pictures of the demo `judge` out of sheets of samples, at their true size of 24 x 24.

    python3 cut.py SHEET ...

A sheet is `cargo xtask sample --checkpoint POLICY --prompt-file prompts.txt --count 4 --seed 1
--output SHEET`. The sheets are those of the run that hacked the proxy after epochs 0, 20, ..., 100, then
those of the run that a KL penalty held. The first picture of every row is taken.
"""
import sys
from PIL import Image

SIDE, SCALE, LEFT, TOP, DOWN, PROMPTS = 24, 5, 8, 8, 156, 8


def coarse(byte):
    """The nearest of 32 values: pictures of five bits a colour compress to less than half."""
    return round(round(byte * 31 / 255) * 255 / 31)


out = bytearray()
for name in sys.argv[1:]:
    sheet = Image.open(name).convert("RGB")
    for row in range(PROMPTS):
        for y in range(SIDE):
            for x in range(SIDE):
                pixel = sheet.getpixel((LEFT + SCALE * x + 2, TOP + DOWN * row + SCALE * y + 2))
                out += bytes(map(coarse, pixel))
open("hacking.rgb", "wb").write(out)

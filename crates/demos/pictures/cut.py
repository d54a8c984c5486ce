"""Cuts the pictures of the demo `judge` out of two figures of the book, at their true size of 24 x 24."""
from PIL import Image
SIDE, SCALE, LEFT, TOP, ACROSS, DOWN = 24, 5, 8, 8, 128, 156
# (row, column) of the pictures in the figures.
CHOSEN = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 1), (4, 2), (5, 1)]
out = bytearray()
for row, column in CHOSEN:
    for name in ("hacked", "held"):
        figure = Image.open(f"../../../book/src/figures/{name}.png").convert("RGB")
        for y in range(SIDE):
            for x in range(SIDE):
                out += bytes(figure.getpixel((LEFT + ACROSS * column + SCALE * x + 2, TOP + DOWN * row + SCALE * y + 2)))
open("hacking.rgb", "wb").write(out)

"""The sizes of 50 pictures as JPEGs of quality 95, as Pillow writes them: 5 kinds, 10 sizes each.

Usage: python make_jpeg_sizes.py > jpeg_sizes.json

Pictures are made by integer arithmetic alone; tests/src/jpeg.rs makes the same ones.
"""

import io
import json

from PIL import Image

SIZES = [(1, 1), (5, 3), (8, 8), (24, 24), (33, 17), (64, 64), (100, 75), (96, 128), (250, 131), (512, 512)]


class Random:
    """A linear congruential generator; its bytes are the top ones."""

    def __init__(self, seed):
        self.state = seed

    def byte(self):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state >> 24


def smooth(random, width, height):
    """Gradients across, down and along the diagonal."""
    return [(255 * x // width, 255 * y // height, 255 * (x + y) // (width + height)) for y in range(height) for x in range(width)]


def noise(random, width, height):
    """Every byte at random, red first."""
    return [tuple(random.byte() for _ in range(3)) for _ in range(height) for _ in range(width)]


def drawing(random, width, height):
    """Six rectangles and discs on a light ground."""
    pixels = [(235, 235, 230)] * (width * height)
    for shape in range(6):
        color = tuple(random.byte() for _ in range(3))
        left, top = random.byte() * width // 256, random.byte() * height // 256
        radius = 1 + random.byte() * min(width, height) // 1024
        for y in range(height):
            for x in range(width):
                across, down = abs(x - left), abs(y - top)
                inside = across * across + down * down <= radius * radius if shape % 2 else max(across, down) <= radius
                if inside:
                    pixels[y * width + x] = color
    return pixels


def text(random, width, height):
    """Black letters of 5 x 7 random pixels on white, with gaps between letters and lines."""
    pixels = [(255, 255, 255)] * (width * height)
    for top in range(1, height, 10):
        for left in range(1, width, 6):
            for y in range(top, top + 7):
                for x in range(left, left + 5):
                    if random.byte() < 110 and x < width and y < height:
                        pixels[y * width + x] = (20, 20, 30)
    return pixels


def rings(random, width, height):
    """Coloured rings that become finer towards the right and the bottom."""
    return [((x * x + y * y) // 16 % 256, (x * x + 2 * y * y) // 32 % 256, x * y // 8 % 256) for y in range(height) for x in range(width)]


def size(pixels, width, height):
    image = Image.new("RGB", (width, height))
    image.putdata(pixels)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=95)
    return len(file.getvalue())


def main():
    sizes = {}
    for kind in [smooth, noise, drawing, text, rings]:
        for seed, (width, height) in enumerate(SIZES):
            sizes[f"{kind.__name__} {width}x{height}"] = size(kind(Random(seed), width, height), width, height)
    print(json.dumps(sizes, indent=1))


main()

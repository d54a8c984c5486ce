"""Runs GenEval's published rules on random detections and writes their verdicts.

    python make.py GENEVAL REWARD_SERVER OUTPUT_DIRECTORY

GENEVAL and REWARD_SERVER are clones of djghosh13/geneval and yifan123/reward-server. The functions that judge are taken from
their files and executed as they are; only the detector, the files and the colour classifier are replaced, so that they answer
with the detections of a scene.
"""

import ast
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEED = 20261126
PROMPTS = 100
SCENES = 10
OFFICIAL = ("af4902f", "evaluation/evaluate_images.py")
REWARD = ("92ac29f", "reward_server/gen_eval.py")
RELATIONS = ["left of", "right of", "above", "below"]
TAGS = ["single_object", "two_object", "counting", "colors", "position", "color_attr"]


def published(clone, commit, path):
    return subprocess.run(["git", "-C", clone, "show", f"{commit}:{path}"], check=True, capture_output=True, text=True).stdout


class Judge:
    """The judging functions of one published file, with the parts around them replaced."""

    WANTED = {"compute_iou", "relative_position", "evaluate", "evaluate_reward", "evaluate_image"}

    def __init__(self, source, classes, colors):
        self.scene = None
        same = lambda image: image
        self.names = {
            "np": np, "json": json, "classnames": classes, "COLORS": colors, "object_detector": None,
            "THRESHOLD": 0.3, "COUNTING_THRESHOLD": 0.9, "MAX_OBJECTS": 16, "NMS_THRESHOLD": 1.0, "POSITION_THRESHOLD": 0.1,
            "Image": SimpleNamespace(open=same), "ImageOps": SimpleNamespace(exif_transpose=same),
            "inference_detector": lambda _, images: [self.scene] * len(images) if isinstance(images, list) else self.scene,
            # The masks of a scene are its colours.
            "color_classification": lambda image, found, name: [mask for _, mask in found],
        }
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name in self.WANTED:
                exec(compile(ast.Module([node], []), node.name, "exec"), self.names)


def detector_output(detections, classes, colors):
    """What mmdet 2 returns: for every class boxes with scores, f32, and masks (here colours)."""
    boxes, masks = [], []
    for index in range(len(classes)):
        rows = [row for row in detections if row[0] == index]
        boxes.append(np.array([row[1:6] for row in rows], dtype=np.float32).reshape(-1, 5))
        masks.append([None if row[6] < 0 else colors[row[6]] for row in rows])
    return boxes, masks


def metadata(rng, number, classes, colors):
    """Every second prompt is of the benchmark's form, the others are free: any number of entries with any clause."""
    tag = TAGS[number // 2 % 6]
    free = number % 2 == 1
    names = [classes[(7 * number + i) % 80] for i in range(3)]
    count = lambda most: rng.randint(1, most)
    if not free:
        include = [{"class": names[0], "count": rng.randint(2, 4) if tag == "counting" else 1}]
        if tag in ("two_object", "position", "color_attr"):
            include.append({"class": names[1], "count": 1})
        if tag in ("colors", "color_attr"):
            for entry in include:
                entry["color"] = rng.choice(colors)
        if tag == "position":
            include[1]["position"] = [rng.choice(RELATIONS), 0]
        exclude = [{"class": names[0], "count": include[0]["count"] + 1}] if tag == "counting" else []
    else:
        include = [{"class": name, "count": count(3)} for name in names[: count(3)]]
        for index, entry in enumerate(include):
            if rng.random() < 0.5:
                entry["color"] = rng.choice(colors)
            if index > 0 and rng.random() < 0.6:
                entry["position"] = [rng.choice(RELATIONS), rng.randrange(index)]
        exclude = [{"class": rng.choice(names), "count": count(4)}] if rng.random() < 0.3 else []
    line = {"tag": tag, "include": include, "prompt": f"prompt {number}"}
    return {**line, "exclude": exclude} if exclude else line


def box(rng, x, y):
    w, h = rng.randint(0, 90), rng.randint(4, 90)
    grid = rng.choice([1, 1, 10])
    place = lambda value: round(value / grid) * grid if rng.random() < 0.7 else round(value, 1)
    x0, y0 = place(x - w / 2), place(y - h / 2)
    return [x0, y0, x0 + place(w), y0 + place(h)]


def scene(rng, line, classes, colors):
    """Detections that nearly show what the prompt asks for."""
    rows, centres = [], []
    low, edge = (0.9, [0.9, 0.90000004, 0.9000001, 0.8999]) if line["tag"] == "counting" else (0.3, [0.3, 0.30000001, 0.30000004, 0.2999])
    used = set()

    def score(*choices):
        while True:
            value = rng.choice(choices) if choices else round(rng.uniform(low + 0.002, 1), 3)
            value = value if np.float32(value) not in used else round(rng.uniform(0, 1), 4)
            if np.float32(value) not in used:
                used.add(np.float32(value))
                return value

    for entry in line["include"]:
        centre = [rng.uniform(100, 400), rng.uniform(100, 400)]
        if "position" in entry:
            relation, target = entry["position"]
            axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
            centre = list(centres[target])
            centre[axis] += sign * rng.uniform(0, 150)
            centre[1 - axis] += rng.uniform(-90, 90)
        centres.append(centre)
        extra = rng.choices([0, -1, 1, 2, 20], [78, 8, 8, 4, 1])[0]
        for _ in range(max(entry["count"] + extra, 0)):
            asked = entry.get("color") if rng.random() < 0.92 else rng.choice(colors)
            color = colors.index(asked) if asked else rng.choice([-1, 3])
            spread = lambda c: c + rng.uniform(-15, 15)
            rows.append([classes.index(entry["class"]), *box(rng, *map(spread, centre)), score(), color])
        for _ in range(rng.choices([0, 1, 2], [60, 30, 10])[0]):
            edge_or_low = edge if rng.random() < 0.5 else [round(rng.uniform(0, low), 3)]
            rows.append([classes.index(entry["class"]), *box(rng, *centre), score(*edge_or_low), rng.randrange(10)])
    for no in line.get("exclude", []):
        if rng.random() < 0.2:
            rows.append([classes.index(no["class"]), *box(rng, 250, 250), score(), rng.randrange(10)])
    if rng.random() < 0.3:
        rows.append([rng.randrange(80), *box(rng, 250, 250), score(), rng.randrange(10)])
    rng.shuffle(rows)
    return rows


def main():
    geneval, reward_server, output = sys.argv[1:]
    classes = published(geneval, OFFICIAL[0], "evaluation/object_names.txt").split("\n")[:80]
    source = published(geneval, *OFFICIAL)
    colors = next(ast.literal_eval(node.value) for node in ast.parse(source).body
                  if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COLORS")
    official = Judge(source, classes, colors)
    source = published(reward_server, *REWARD)
    reference = Judge(source, classes, colors)
    always = "rewards.append(1.0)"
    assert source.count(always) == 1
    # The deviation `position-pays-nothing`: the 1 only for a position that holds.
    fixed = Judge(source.replace(always, f"if matched: {always}"), classes, colors)

    rng = random.Random(SEED)
    prompts = []
    for number in range(PROMPTS):
        line = metadata(rng, number, classes, colors)
        scenes = []
        for _ in range(SCENES):
            rows = scene(rng, line, classes, colors)
            for judge in (official, reference, fixed):
                judge.scene = detector_output(rows, classes, colors)
            right = official.names["evaluate_image"]("", line)["correct"]
            [answer] = reference.names["evaluate_image"]([0], [line], False)
            [other] = fixed.names["evaluate_image"]([0], [line], True)
            assert answer["correct"] == right and answer["strict_correct"] == other["strict_correct"]
            scenes.append([rows, [int(right), int(answer["strict_correct"]), other["score"], answer["score"]]])
        prompts.append((line, scenes))

    dump = lambda value: json.dumps(value, separators=(",", ":"))
    with open(Path(output) / "scenes.json", "w") as file:
        file.write(f'{{"classes":{dump(classes)},\n"colors":{dump(colors)},\n"prompts":[')
        for number, (line, scenes) in enumerate(prompts):
            lines = ",\n ".join(map(dump, scenes))
            file.write(f'{"," if number else ""}\n{{"metadata":{dump(line)},"scenes":[\n {lines}]}}')
        file.write("]}\n")
    every = [answer for _, scenes in prompts for _, answer in scenes]
    print("right, strict, reward with another reference:", [sum(column) for column in zip(*((a[0], a[1], a[2] != a[3]) for a in every))])
    print("negative:", sum(a[2] < 0 for a in every), "right, not strict:", sum(a[0] > a[1] for a in every), "strict, not right:", sum(a[0] < a[1] for a in every))
    print("numpy", np.__version__, "python", sys.version.split()[0])


if __name__ == "__main__":
    main()

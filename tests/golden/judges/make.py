"""Makes the pickles of this folder: requests as the reference's clients write them, answers as its
servers write them, and two that a careful reader refuses. Run it here: python3 make.py"""

import io
import json
import pickle
import platform
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
METADATA = [
    {
        "tag": "position",
        "include": [
            {"class": "bench", "count": 1},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a dog left of a bench",
    },
    {
        "tag": "counting",
        "include": [{"class": "apple", "count": 3}],
        "exclude": [{"class": "apple", "count": 4}],
        "prompt": "a photo of three apples",
    },
]
TAGS = ["single_object", "two_object", "counting", "colors", "position", "color_attr"]


def jpeg(color):
    file = io.BytesIO()
    Image.new("RGB", (16, 8), color).save(file, format="JPEG")
    return file.getvalue()


def grouped(values):
    """Every list has one number per image; -10 stands for another tag."""
    return {
        tag: [value if item["tag"] == tag else -10.0 for value, item in zip(values, METADATA)]
        for tag in TAGS
    }


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("echo executed > executed.txt",)


images = [jpeg("red"), jpeg((0, 0, 200))]
scores, rewards, strict = [0.75, 1 / 3], [1.0, 0.0], [0.0, 1.0]
geneval = {
    "scores": scores,
    "rewards": rewards,
    "strict_rewards": strict,
    "group_rewards": grouped(rewards),
    "group_strict_rewards": grouped(strict),
}
files = {
    "geneval_request": pickle.dumps({"images": images, "meta_datas": METADATA, "only_strict": True}),
    "deqa_request": pickle.dumps({"images": images}),
    "deqa_answer": pickle.dumps({"outputs": [0.5078125, 0.91796875]}),
    "numpy_answer": pickle.dumps({"scores": [np.float64(0.5)]}),
    "evil_answer": pickle.dumps({"scores": Evil()}),
    **{f"geneval_answer_{p}": pickle.dumps(geneval, protocol=p) for p in range(2, 6)},
}
for name, content in files.items():
    (FOLDER / f"{name}.pickle").write_bytes(content)
facts = {
    "metadata": METADATA,
    "geneval": geneval,
    "python": platform.python_version(),
    "numpy": np.__version__,
    "protocol of requests": pickle.DEFAULT_PROTOCOL,
}
(FOLDER / "golden.json").write_text(json.dumps(facts, indent=1) + "\n")

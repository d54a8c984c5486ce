"""Files of torch.save of every kind, and the same tensors as safetensors.

    python make.py ../clip-tiny OUTPUT

See README.md.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SEED = 20261127


class Odd:
    """An object of a class that no reader knows."""

    def __init__(self, number):
        self.number = number


def contiguous(state):
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def main():
    clip, output = map(Path, sys.argv[1:])
    torch.manual_seed(SEED)
    network = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2, bias=False))
    plain = network.state_dict()
    torch.save(plain, output / "plain.pt")
    save_file(contiguous(plain), output / "plain.safetensors")

    # Precisions, a number, an empty tensor, integers beside them.
    typed = {
        "half": torch.randn(4, 3).half(),
        "bfloat": torch.randn(4, 3).bfloat16(),
        "float": torch.randn(2, 3, 4, 5),
        "scale": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
        "ids": torch.arange(7),
        "parameter": nn.Parameter(torch.randn(3)),
    }
    torch.save(typed, output / "typed.bin")
    save_file(contiguous(typed), output / "typed.safetensors")

    # Views of one storage whose numbers are in a row, one of them twice.
    whole = torch.randn(6, 4)
    views = {"whole": whole, "rows": whole[2:5], "one": whole[3], "number": whole[5, 3], "again": whole, "flat": whole.view(-1)[3:9]}
    torch.save(OrderedDict(views), output / "views.pth")
    save_file(contiguous(views), output / "views.safetensors")

    # A checkpoint of training: the weights are an entry among others.
    odd = {"epoch": 3, "name": "hps", "state_dict": plain, "args": Odd(7), "rates": [1e-3, -1.5], "seen": {1, 2}, "large": 2**70, "none": None}
    torch.save(odd, output / "nested.pt")
    torch.save(odd, output / "protocol4.pt", pickle_protocol=4)

    # What is refused.
    torch.save({"weight": torch.randn(3, 5).t()}, output / "strided.pt")
    torch.save(plain, output / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(network).save(str(output / "script.pt"))
    torch.save([1, 2], output / "list.pt")

    # The published preference models are such files.
    hps = load_file(clip / "open_clip" / "HPS_v2.1_compressed.safetensors")
    torch.save({"epoch": 1, "state_dict": hps}, output / "HPS_v2.1_compressed.pt")
    head = load_file(clip / "transformers" / "sac+logos+ava1-l14-linearMSE.safetensors")
    torch.save(head, output / "sac+logos+ava1-l14-linearMSE.pth")


main()

"""Commented study files for networks and data of the user's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from mfas_optuna.space import SpaceKind
from mfas_optuna.target import METRICS, TargetKind

_SEARCH = """\
[objective]
# metric = "{metric}"    # {metrics}
# balance = true         # Weight the loss against frequent classes or labels

{space}"""

_SPACES: Mapping[SpaceKind, str] = {
    "extended": """\
[space]
kind = "extended"       # Or "paper": each layer concatenates one feature of every modality
activations = ["relu", "tanh", "identity"]   # Of each fusion layer; also sigmoid, leaky_relu ...
max_depth = 3           # Most fusion layers

[fusion]
{size}

[search]
n_iterations = "unlimited"
n_trials = 120          # It begins with the simple ways to fuse
samples_per_step = 12   # Networks trained at each depth of an iteration

[training]
epochs = 4              # Of each network during the search
min_steps = 320         # With few samples, an epoch goes over them several times
batch_size = 256
weight_decay = 1e-2

[final]
{final_size}epochs = 20
min_steps = 1600
recipes = [             # Each is tried for every method, and validation chooses
  {{ learning_rate = 3e-3, weight_decay = 1e-2 }},
  {{ learning_rate = 3e-3, weight_decay = 1e-1, dropout = 0.3 }},
  {{ learning_rate = 1e-2, weight_decay = 1e-2, dropout = 0.1 }},
]
""",
    "paper": """\
[space]
kind = "paper"          # Or "extended": layers that join otherwise, take several features or none, and dense heads
activations = ["relu", "sigmoid"]   # Of each fusion layer; also leaky_relu, tanh ...
max_depth = 3           # Most fusion layers

[fusion]
width = 16              # Units of each fusion layer during the search

[search]
n_iterations = 3        # How often depth 1 to max_depth is gone through
samples_per_step = 15   # Networks trained at each depth of an iteration

[training]
epochs = 2              # Of each network during the search
batch_size = 64
learning_rate = 3e-3
""",
}

_BUDGET = """\
n_parameters = {n_parameters:<8} # What each network may learn at most: it is as wide as that allows
# width = 16            # In its place: units of each fusion layer"""
_WIDTH = """\
width = 16              # Units of each fusion layer during the search
# n_parameters = 5000   # In its place: what each network may learn at most; for wide layers more"""
_FINAL_WIDTHS = """\
widths = [16, 64]       # Units of each fusion layer in the end, unless n_parameters is given; validation chooses
"""

_ARRAYS = """\
# {name}: which of the layers below are to be fused, and how.
title = "{name}: features that were extracted before"

[dataset]
name = "arrays"
folder = {folder}       # Relative to this file: labels.npy and MODALITY/LAYER.npy or MODALITY.safetensors
target = "{target}"     # multiclass (one of several classes), multilabel (any of several) or regression
# classes = ["cat", "dog"]          # Names; absent: numbers
# validation_fraction = 0.15        # Of the training samples, when there is no validation split

# The order of the backbones is the order of modalities in an architecture.
{backbones}
{search}"""

_GIVEN = """\
[backbones.{modality}]
kind = "given"
features = [{features}]
"""

_PYTHON = """\
# {name}: which of the layers below are to be fused, and how.
title = "{name}: example data, replace them in {name}.py"

[dataset]
name = "python"
file = "{name}.py"      # Relative to this file
dataset = "dataset"     # The function in it that returns a split
target = "{target}"     # multiclass (one of several classes), multilabel (any of several) or regression
# classes = ["cat", "dog"]          # Names; absent: numbers
# version = "2"                     # Change it when the data change although {name}.py does not

# The order of the backbones is the order of modalities in an architecture.
{backbones}
{search}"""

_OWN = """\
[backbones.{modality}]
kind = "python"
file = "{name}.py"
module = "{modality}_network"       # The function that returns the network
# weights = "{modality}.safetensors"  # Its trained weights, unless the function loads them; or .pt of tensors
# What there is: mfas-optuna taps {name}.py:{modality}_network --shape {shape}
features = ["first", "second"]
# For transformers, where the channels are the last axis:
# features = [{{ module = "blocks.3", name = "block3", channel_axis = -1 }}]
training = {{ epochs = 3 }}           # Leave this line out when the network is trained already
"""

_CODE = '''\
"""Networks and data of the study {name}. They run as they are, on numbers that were made up: replace both."""

from collections import OrderedDict

import torch
from torch import nn


def network(n_inputs: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            first=nn.Sequential(nn.Linear(n_inputs, 16), nn.ReLU()),
            second=nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
            head=nn.Linear(16, {n_outputs}),
        )
    )


{networks}

def dataset(split: str):
    """Return the items ({{modality: tensor}}, target) of "train", "validation" or "test"; None when there are none."""
    seed, n = {{"train": (0, 600), "validation": (1, 200), "test": (2, 200)}}[split]
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randint(0, 2, (n, {n_modalities}), generator=generator)
{inputs}
    targets = {targets}
    return [({{{item}}}, targets[i].tolist()) for i in range(n)]
'''

_TARGETS: Mapping[TargetKind, str] = {
    "multiclass": "hidden.sum(dim=1)",
    "multilabel": "hidden",
    "regression": "hidden.sum(dim=1, keepdim=True).float()",
}


def arrays_study(
    name: str,
    folder: str,
    layers: Mapping[str, Mapping[str, int]],
    target: TargetKind,
    space: SpaceKind = "extended",
) -> str:
    """Return a study file for features in arrays.

    Args:
        name: Of the study.
        folder: Of the arrays, relative to the study file.
        layers: The layers of each modality, with their numbers of channels.
        target: What is predicted.
        space: What is searched.
    """
    backbones = "\n".join(
        _GIVEN.format(modality=_key(modality), features=", ".join(map(json.dumps, names)))
        for modality, names in layers.items()
    )
    n_read = sum(max(of_modality.values()) for of_modality in layers.values())
    size = _BUDGET.format(n_parameters=max(5_000, math.ceil(16 * n_read / 1_000) * 1_000))
    return _ARRAYS.format(
        name=name,
        folder=json.dumps(folder),
        target=target,
        backbones=backbones,
        search=_search(target, space, size, ""),
    )


def python_study(
    name: str, modalities: Sequence[str], target: TargetKind, space: SpaceKind = "extended"
) -> tuple[str, str]:
    """Return a study file for networks and data in Python, and a Python file to begin with.

    Args:
        name: Of the study.
        modalities: Names, each a Python identifier.
        target: What is predicted.
        space: What is searched.
    """
    backbones = "\n".join(
        _OWN.format(modality=modality, name=name, shape=8 + 4 * number) for number, modality in enumerate(modalities)
    )
    n_outputs = {"multiclass": len(modalities) + 1, "multilabel": len(modalities), "regression": 1}[target]
    code = _CODE.format(
        name=name,
        n_outputs=n_outputs,
        n_modalities=len(modalities),
        networks="\n".join(
            f"def {modality}_network() -> nn.Module:\n    return network({8 + 4 * number})\n\n"
            for number, modality in enumerate(modalities)
        ).rstrip("\n")
        + "\n",
        inputs="\n".join(
            f"    {modality} = hidden[:, {number}:{number + 1}] + torch.randn(n, {8 + 4 * number}, generator=generator)"
            for number, modality in enumerate(modalities)
        ),
        item=", ".join(f'"{modality}": {modality}[i]' for modality in modalities),
        targets=_TARGETS[target],
    )
    study = _PYTHON.format(
        name=name, target=target, backbones=backbones, search=_search(target, space, _WIDTH, _FINAL_WIDTHS)
    )
    return study, code


def _search(target: TargetKind, space: SpaceKind, size: str, final_size: str) -> str:
    settings = _SPACES[space].format(size=size, final_size=final_size)
    return _SEARCH.format(metric=METRICS[target][0], metrics=", ".join(METRICS[target]), space=settings)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)

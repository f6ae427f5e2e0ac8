"""The module model.py, written for one model.

Shapes: B batch.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mfas_optuna.export.backbones import SNIPPETS, WrittenBackbone
from mfas_optuna.export.head_code import WrittenHead
from mfas_optuna.export.snippets import CHECK, LOAD, OWN, POOL, ROUND, literal

_TAKEN = frozenset(
    {"self", "torch", "nn", "functional", "Tensor", "Path", "importlib", "sys", "check", "pool", "read", "load"}
    | {
        "load_file",
        "own_network",
        "rounded",
        "features",
        "scale_as_imagenet",
        "joined",
        "halve",
        "motion",
        "largest",
        "x",
        "h",
        "z",
        "hidden",
        "outputs",
        "terms",
        "present",
        "mean",
    }
    | {"Model", "Fusion", "Maxout", "Bottleneck", "Stream", "JointsAsChannels", "dict", "fusion"}
)
"""Names that the code uses otherwise."""


@dataclass(frozen=True)
class Input:
    """An input of the model.

    Attributes:
        name: What people call it: a modality, or MODALITY.LAYER of a given feature.
        argument: Its name in `Model.forward`.
        modality: Which modality it is.
        feature: The feature that it is, where features are given.
        dtype: uint8, where a value v means v / 255, or float32.
        shape: Of one sample, without the batch.
    """

    name: str
    argument: str
    modality: str
    feature: str | None
    dtype: str
    shape: tuple[int, ...]


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return a Python identifier for each name, all different, and none that model.py uses for something else."""
    found: dict[str, str] = {}
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not base or base[0].isdigit() or base.startswith("_"):
            base = f"m{base}"
        candidate, number = base, 2
        while candidate in found.values() or candidate in _TAKEN or keyword.iskeyword(candidate):
            candidate, number = f"{base}_{number}", number + 1
        found[name] = candidate
    return found


def class_names(arguments: Mapping[str, str]) -> dict[str, str]:
    """Return a class name for the backbone of each modality, all different."""
    found: dict[str, str] = {}
    for modality, argument in arguments.items():
        base = "".join(part[:1].upper() + part[1:] for part in argument.split("_"))
        candidate, number = f"{base}Backbone", 2
        while candidate in found.values():
            candidate, number = f"{base}{number}Backbone", number + 1
        found[modality] = candidate
    return found


def write_source(
    *,
    title: str,
    inputs: Sequence[Input],
    outputs: str,
    arguments: Mapping[str, str],
    backbones: Mapping[str, WrittenBackbone],
    head: WrittenHead,
) -> str:
    """Return model.py.

    Args:
        title: One line on what the model is.
        inputs: In order.
        outputs: What the outputs are, in words.
        arguments: What each modality is called in the code, in the order in which `Fusion.forward` takes them.
        backbones: By modality; none where features are given.
        head: The head.
    """
    needs = frozenset().union(*(backbone.snippets for backbone in backbones.values()))
    is_own = "own" in needs
    standard = ["import importlib.util", "import sys"] if is_own else []
    uses_functional = "functional." in head.code or any(
        "functional." in text
        for text in [
            *(backbone.code for backbone in backbones.values()),
            *(SNIPPETS[name] for name in needs & {*SNIPPETS}),
        ]
    )
    imports = [
        *standard,
        "from pathlib import Path",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import Tensor, nn",
        *(["from torch.nn import functional"] if uses_functional else []),
    ]
    parts = [
        CHECK,
        *([POOL] if "pool" in needs else []),
        *(code for name, code in SNIPPETS.items() if name in needs),
        *([OWN] if is_own else []),
        *([ROUND] if head.rounds else []),
        *(backbone.code for backbone in backbones.values() if backbone.code),
        head.code,
        _model(inputs, arguments, backbones),
        LOAD,
    ]
    return (
        "\n\n\n".join(
            ["\n".join([_docstring(title, inputs, outputs), *imports]), *(part.rstrip("\n") for part in parts)]
        )
        + "\n"
    )


def _docstring(title: str, inputs: Sequence[Input], outputs: str) -> str:
    given = ", ".join(f"{of.argument}={of.argument}" for of in inputs)
    lines = [
        f'"""{_inside(title)}',
        "",
        "Plain PyTorch, written for this model alone: read it, change it. It needs torch and safetensors.",
        "",
        "    from model import load",
        '    model = load("folder of this file")',
        f"    outputs = model({given})",
        "",
        "Inputs, B samples each:",
        *(f"    {of.argument}: {of.dtype} (B, {', '.join(map(str, of.shape))})" for of in inputs),
        f"Outputs: {_inside(outputs)}",
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    return "\n".join(lines)


def _inside(text: str) -> str:
    """Return text that can stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _model(inputs: Sequence[Input], arguments: Mapping[str, str], backbones: Mapping[str, WrittenBackbone]) -> str:
    parameters = ", ".join(f"{of.argument}: Tensor" for of in inputs)
    checks = [f"check({literal(of.name)}, {of.argument}, torch.{of.dtype}, {_tuple(of.shape)})" for of in inputs]
    features = []
    for modality, argument in arguments.items():
        of_modality = [of for of in inputs if of.modality == modality]
        if modality in backbones:
            x = of_modality[0].argument
            scaled = f"{x}.float() / 255.0" if of_modality[0].dtype == "uint8" else f"{x}"
            value = backbones[modality].read.replace("{x}", scaled)
        else:
            value = "{" + ", ".join(f"{literal(of.feature or '')}: {of.argument}" for of in of_modality) + "}"
        features.append(f"{argument}={value},")
    return "\n".join(
        [
            "class Model(nn.Module):",
            '    """Backbones and the fusion of what their layers give."""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(
                f"        self.{attribute(arguments[modality])} = {backbone.make}"
                for modality, backbone in backbones.items()
            ),
            "        self.fusion = Fusion()",
            "",
            f"    def forward(self, {parameters}) -> Tensor:",
            '        """Return the outputs (B, C)."""',
            *(f"        {line}" for line in checks),
            "        return self.fusion(",
            *(f"            {line}" for line in features),
            "        )",
        ]
    )


def attribute(argument: str) -> str:
    """Return what the model calls the backbone of a modality."""
    return f"{argument}_backbone"


def _tuple(shape: Sequence[int]) -> str:
    return repr(tuple(shape))

"""How heads bring modalities together, and which kind did best."""

from __future__ import annotations

from typing import Any

import pytest

from mfas_optuna.report.kinds import best_of_each_kind, kind_of_fusion

BOTH = {"audio": ["a1"], "image": ["i1", "i2"]}
AUDIO: dict[str, list[str]] = {"audio": ["a1"]}
IMAGE: dict[str, list[str]] = {"image": ["i1"]}
NONE: dict[str, list[str]] = {}


def network(*layers: tuple[dict[str, list[str]], str], output: str = "last") -> dict[str, Any]:
    written = [{"features": features, "operator": operator, "activation": "relu"} for features, operator in layers]
    return {"kind": "network", "layers": written, "output": output}


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (network((BOTH, "concatenation")), "concatenation"),
        (network((BOTH, "concatenation"), (NONE, "concatenation")), "concatenation"),
        (network((BOTH, "supervised_towers")), "addition"),
        (network((BOTH, "towers"), (BOTH, "product")), "concatenation and multiplication"),
        (network((BOTH, "towers"), (BOTH, "product"), output="all"), "addition and multiplication"),
        (network((BOTH, "towers"), (NONE, "concatenation")), "concatenation"),
        (network((AUDIO, "concatenation"), (IMAGE, "towers")), "addition"),
        (
            {"kind": "network", "layers": [{"features": {"audio": "a1", "image": "i1"}, "activation": "relu"}]},
            "concatenation",
        ),
        (network((BOTH, "product"), (NONE, "concatenation")), "multiplication"),
        (network((AUDIO, "concatenation"), (IMAGE, "product")), "multiplication"),
        (network((AUDIO, "concatenation"), (AUDIO, "product")), "one modality alone"),
        (network((BOTH, "gate")), "gating"),
        (network((AUDIO, "supervised_towers")), "one modality alone"),
        ({"kind": "mlp", "features": [["audio", "a1"], ["image", "i1"]]}, "concatenation"),
        ({"kind": "mlp", "features": [["audio", "a1"], ["audio", "a2"]]}, "one modality alone"),
        ({"kind": "output", "modality": "audio"}, "one modality alone"),
        ({"kind": "late_outputs"}, "addition"),
        ({"kind": "towers"}, "addition"),
        ({"kind": "gmu"}, "gating"),
        ({"kind": "centralnet"}, "a central network"),
        ({"kind": "of tomorrow"}, "of tomorrow"),
    ],
)
def test_kinds(head: dict[str, Any], kind: str) -> None:
    assert kind_of_fusion(head) == kind


def test_the_best_of_each_kind_comes_first() -> None:
    methods = [
        ({"kind": "gmu"}, 0.5),
        ({"kind": "towers"}, 0.7),
        ({"kind": "late_outputs"}, 0.8),
        ({"kind": "gmu"}, 0.6),
    ]
    assert list(best_of_each_kind(methods).items()) == [("addition", 2), ("gating", 3)]

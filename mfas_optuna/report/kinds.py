"""Which kind of fusion a stored head is, and which kind a study's data wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mfas_optuna.space import read_layer

_OPERATORS = {
    "concatenation": "concatenation",
    "towers": "addition",
    "supervised_towers": "addition",
    "product": "multiplication",
    "gate": "gating",
}
_HEADS = {"towers": "addition", "late_heads": "addition", "late_outputs": "addition", "gmu": "gating"}
ALONE = "one modality alone"


def kind_of_fusion(head: Mapping[str, Any]) -> str:
    """Return how a head brings modalities together, from its record.

    `concatenation`: side by side into one layer; `addition`: what each gives by itself is added up; `multiplication`:
    their projections are multiplied; `gating`: each decides how much of the others counts; `a central network`; or
    several of these, by the layers of a network; or `one modality alone`. A head of a kind that is not known here is
    called by its own name.
    """
    match head["kind"]:
        case "network":
            return _of_network(head["layers"], is_dense=head.get("output") == "all")
        case "mlp":
            return ALONE if len({modality for modality, _ in head["features"]}) == 1 else "concatenation"
        case "output":
            return ALONE
        case "centralnet":
            return "a central network"
    return _HEADS.get(head["kind"], str(head["kind"]))


def _of_network(layers: Sequence[Mapping[str, Any]], *, is_dense: bool) -> str:
    seen: set[str] = set()  # Modalities that h of the layers so far comes from.
    found: list[str] = []
    for number, layer in enumerate(map(read_layer, layers), start=1):
        of_layer = set(layer.features)
        if len(of_layer | seen) > 1 and len(of_layer) + bool(seen) > 1:
            kind = _OPERATORS[layer.operator]
            # Towers whose values another layer mixes before the head are put side by side, not added up.
            is_mixed = kind == "addition" and not is_dense and number < len(layers)
            found.append("concatenation" if is_mixed else kind)
        elif is_dense and seen and of_layer - seen:
            found.append("addition")
        seen |= of_layer
    return " and ".join(dict.fromkeys(found)) or ALONE


def best_of_each_kind(methods: Iterable[tuple[Mapping[str, Any], float]]) -> dict[str, int]:
    """Return for each kind of fusion the position of its best method, the best kind first.

    Args:
        methods: The head of each method, and its validation score.
    """
    scored = [(kind_of_fusion(head), score) for head, score in methods]
    order = sorted(range(len(scored)), key=lambda position: -scored[position][1])
    best: dict[str, int] = {}
    for position in order:
        best.setdefault(scored[position][0], position)
    return best

"""The fixed methods that are networks of the extended space: what a search there begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mfas_optuna.space import NOTHING, Architecture, SearchSpace


def fixed_architectures(space: SearchSpace) -> list[Architecture]:
    """Return the simple ways to fuse that are networks of a space, each once; none of the paper's space.

    Concatenation of all features with one hidden layer and with two, of the best by probes, of the last ones; towers
    and supervised towers of all, supervised ones of the best; products of all and of the last; the gate of the last;
    and each modality alone. Late fusion and CentralNet are no networks of the space.

    Args:
        space: Where its activations allow it, products have none (identity), gates tanh, the others relu; else all have
            the first.
    """
    if space.kind == "paper":
        return []
    found = (space.from_parameters(parameters) for parameters in _all_parameters(space))
    return list(dict.fromkeys(architecture for architecture in found if architecture is not None))


def _all_parameters(space: SearchSpace) -> Iterator[dict[str, int | str]]:
    every = {modality: "all" if len(names) > 1 else names[0] for modality, names in space.modalities.items()}
    nothing = dict.fromkeys(space.modalities, NOTHING)
    last = {modality: names[-1] for modality, names in space.modalities.items()}
    sizes = sorted({
        name for choices in space.choices.values() for name in choices if name.startswith("best")
    })  # fmt: skip
    best = [
        {modality: size if size in space.choices[modality] else every[modality] for modality in every} for size in sizes
    ]
    relu, identity, tanh = (_usual(space.activations, name) for name in ("relu", "identity", "tanh"))
    yield _named([(every, relu, "concatenation")])
    if space.max_depth > 1:
        yield _named([(every, relu, "concatenation"), (nothing, relu, "concatenation")])
    for features in (*best, last):
        yield _named([(features, relu, "concatenation")])
    yield _named([(every, relu, "towers")])
    for features in (every, *best):
        yield _named([(features, relu, "supervised_towers")])
    for features in (every, last):
        yield _named([(features, identity, "product")])
    yield _named([(last, tanh, "gate")])
    for modality in every:
        yield _named([({**nothing, modality: every[modality]}, relu, "concatenation")])


def _usual(activations: Sequence[str], wanted: str) -> str:
    return wanted if wanted in activations else activations[0]


def _named(layers: Sequence[tuple[dict[str, str], str, str]]) -> dict[str, int | str]:
    parameters: dict[str, int | str] = {"depth": len(layers), "output": "last"}
    for number, (features, activation, operator) in enumerate(layers, start=1):
        parameters |= {f"layer{number}.{modality}": name for modality, name in features.items()}
        parameters |= {f"layer{number}.activation": activation, f"layer{number}.operator": operator}
    return parameters

"""Found networks as SVG, after the paper's Figures 3 and 4: backbones as columns, chosen features, fusion layers.

Lengths are in user units, of which a figure shown at its own size has one a pixel. Text is text, so that it can be
selected and found. Strokes and letters have the colour of the text around the figure (`--mfas-ink`, where a page sets
it), so that it can be read on white and on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from mfas_optuna.errors import PictureError
from mfas_optuna.features.cache import OUTPUT
from mfas_optuna.space import IS_SET, NOTHING, OPERATOR_NAMES, read_layer
from mfas_optuna.visualization.observed import choices_of, observe, without_sets
from mfas_optuna.visualization.svg import (
    FONT_SIZE,
    GAP,
    GUTTER,
    Box,
    down,
    feature_box,
    line,
    past,
    rectangle,
    text_at,
    width_for,
)
from mfas_optuna.visualization.theme import COLOURS, DARK, LIGHT

BOX_HEIGHT = 30.0
MARGIN = 6.0
PORT_SPREAD = 9.0
"""Between the ends of two lines on one box."""

_STYLE = (
    ".mfas-network{color:var(--mfas-ink,#1c2024);font:14px system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){.mfas-network{color:var(--mfas-ink,#e8eaed)}}"
)
_PAPER = f".mfas-network{{background:{LIGHT}}}@media(prefers-color-scheme:dark){{.mfas-network{{background:{DARK}}}}}"


PLAIN = OPERATOR_NAMES[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """A box of the fusion column.

    Attributes:
        name: First line: which layer.
        what: Second line: what it does with what it reads.
        reads: Modality and feature of each line into it.
    """

    name: str
    what: str
    reads: tuple[tuple[str, str], ...]


def draw_network(study: optuna.Study, trial: FrozenTrial | None = None) -> str:
    """Return the fusion network of a trial as SVG, to stand in a page or in a file.

    Args:
        study: A search, whose trials name all features to choose from.
        trial: One of its trials; None: that of the best network.

    Raises:
        PictureError: The study has more than one objective or no complete trial, or the trial names no network.
    """
    seen = observe(study)
    if trial is None:
        best = seen.best_first()
        if not best:
            raise PictureError(f"Study {study.study_name!r}: expected a complete trial to draw. {seen.nothing}")
        parameters, number = best[0].parameters, best[0].number
    else:
        parameters, number = trial.params, trial.number
    drawn = draw_parameters(parameters, seen.columns)
    if drawn is None:
        raise PictureError(
            f"Study {study.study_name!r}: trial {number} names no network. Expected the parameters depth, "
            f"layer1.MODALITY and layer1.activation, found {sorted(parameters)}."
        )
    return drawn


def draw_parameters(parameters: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> str | None:
    """Return the network that a trial's parameters name as SVG; None where they name none.

    Args:
        parameters: `depth`, `layer1.MODALITY` and so on, as a trial has them.
        columns: All features of each modality, from the first layer of its backbone to the last.
    """
    depth = parameters.get("depth")
    if not isinstance(depth, int) or depth < 1 or not columns:
        return None
    stages = []
    for number in range(1, depth + 1):
        chosen = [(modality, str(parameters.get(f"layer{number}.{modality}"))) for modality in columns]
        activation = str(parameters.get(f"layer{number}.activation"))
        reads = tuple((modality, name) for modality, name in chosen if name != NOTHING)
        joins = len(reads) + (number > 1) > 1  # With but one part every operator is concatenation.
        operator = str(parameters.get(f"layer{number}.operator", PLAIN)) if joins else PLAIN
        stages.append(Stage(f"fusion {number}", _joined(operator, activation), reads))
    return _drawn(stages, columns, is_dense=parameters.get("output") == "all")


def draw_alone(trial: FrozenTrial) -> str | None:
    """Return the network that a trial names as SVG on paper of its own, to be shown as an image anywhere.

    The features to choose from are those that the trial's parameters may be; None where it names no network.
    """
    drawn = draw_parameters(trial.params, choices_of([trial])[0])
    return None if drawn is None else drawn.replace("<style>", f"<style>{_PAPER}", 1)


def draw_head(record: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> str | None:
    """Return a stored head as SVG: a found network, or a simple way to fuse; None for one that has no drawing.

    Args:
        record: The head's record, as `mfas_optuna.finals` stores it.
        columns: All features of each modality; what the head reads besides is added.
    """
    width = f"width {record.get('width')}"
    features = record.get("features")
    match record.get("kind"):
        case "network":
            stages = [
                Stage(
                    f"fusion {number}",
                    f"{_joined(layer.operator, layer.activation)}, {width}",
                    tuple((modality, name) for modality, names in layer.features.items() for name in names),
                )
                for number, layer in enumerate(map(read_layer, record.get("layers", ())), start=1)
            ]
        case "mlp" if isinstance(features, Sequence):
            layers = record.get("hidden_layers", 1)
            hidden = "hidden layer" if layers == 1 else f"{layers} hidden layers"
            stages = [Stage("side by side", f"{hidden}, {width}", tuple((item[0], item[1]) for item in features))]
        case "towers" | "late_heads" if isinstance(features, Mapping):
            stages = [
                Stage(f"tower {modality}", f"hidden layer, {width}", tuple((modality, name) for name in names))
                for modality, names in features.items()
            ]
        case "gmu" if isinstance(features, Mapping):
            stages = [Stage("gated unit", width, tuple(features.items()))]
        case "centralnet" if isinstance(features, Mapping):
            stages = _central(features, width)
        case "output":
            stages = _given([str(record.get("modality"))])
        case "late_outputs":
            stages = _given(record.get("modalities", ()))
        case _:
            return None
    if not stages:
        return None
    mean = "weighted mean" if record.get("how") == "weighted" else "mean"
    ends = {"towers": "sum", "late_heads": mean, "late_outputs": mean, "output": "prediction"}
    return _drawn(stages, columns, ends.get(str(record["kind"]), ""), is_dense=record.get("output") == "all")


def _joined(operator: str, activation: str) -> str:
    """Return what a fusion layer does, in words; concatenation, the paper's way, goes without saying."""
    return activation if operator == PLAIN else f"{operator.replace('_', ' ')}, {activation}"


def _central(features: Mapping[str, Sequence[str]], width: str) -> list[Stage]:
    """Return the layers of a central network; modalities of different depth end together."""
    depth = max(map(len, features.values()), default=0)
    reads: list[list[tuple[str, str]]] = [[] for _ in range(depth)]
    for modality, names in features.items():
        for of_layer, name in zip(reads[depth - len(names) :], names, strict=True):
            of_layer.append((modality, name))
    return [Stage(f"central {number}", f"weighted sum, {width}", tuple(pairs)) for number, pairs in enumerate(reads, 1)]


def _given(modalities: Sequence[str]) -> list[Stage]:
    """Return what backbones predict by themselves."""
    return [Stage(modality, "as its backbone says", ((modality, OUTPUT),)) for modality in modalities]


# Geometry.


def _drawn(
    stages: Sequence[Stage], columns: Mapping[str, Sequence[str]], sum_of_stages: str = "", *, is_dense: bool = False
) -> str:
    """Return stages between the columns of their modalities as SVG.

    Args:
        stages: From the first to the last; each reads the one before it, unless `sum_of_stages` says otherwise.
        columns: All features of each modality.
        sum_of_stages: How stages that do not read each other are put together; empty where they do.
        is_dense: Whether the head reads every stage, besides each the one before it.
    """
    columns = {modality: without_sets(names) for modality, names in columns.items()}
    read = [pair for stage in stages for pair in stage.reads]
    names = {
        modality: tuple(dict.fromkeys((*columns.get(modality, ()), *(name for of, name in read if of == modality))))
        for modality in dict.fromkeys((*columns, *(modality for modality, _ in read)))
    }
    colours = {modality: COLOURS[position % len(COLOURS)] for position, modality in enumerate(names)}
    n_left = (len(names) + 1) // 2
    left, right = list(names)[:n_left], list(names)[n_left:]
    end = sum_of_stages or "linear head"
    stage_width = width_for([text for stage in stages for text in (stage.name, stage.what)] + [end])
    n_rows = max(map(len, names.values()))
    stage_height = 2 * BOX_HEIGHT - 10
    top = MARGIN + BOX_HEIGHT
    height = max(n_rows * (BOX_HEIGHT + GAP), len(stages) * (stage_height + 22) + BOX_HEIGHT) + top + MARGIN
    x, boxes, places = MARGIN, {}, {}
    for modality in [
        *left,
        "",
        *right,
    ]:  # The empty name stands for the fusion column, which no modality can be called.
        width = stage_width if not modality else width_for([modality, *names[modality]])
        places[modality] = (x, width)
        for row, name in enumerate(names.get(modality, ())):
            boxes[modality, name] = Box(x, top + row * (BOX_HEIGHT + GAP), width, BOX_HEIGHT)
        x += width + GUTTER
    total = x - GUTTER + MARGIN
    stage_x = places[""][0]
    pitch = (height - top - MARGIN - BOX_HEIGHT) / len(stages)
    stage_boxes = [Box(stage_x, top + position * pitch, stage_width, stage_height) for position in range(len(stages))]
    end_box = Box(stage_x, height - MARGIN - BOX_HEIGHT, stage_width, BOX_HEIGHT)
    parts = []
    for stage, box in zip(stages, stage_boxes, strict=True):
        parts += _lines_into(stage, box, boxes, colours, left, right)
    for position, box in enumerate(stage_boxes):
        if not sum_of_stages or position == len(stage_boxes) - 1:
            parts.append(down(box, (stage_boxes[position + 1 :] or [end_box])[0]))
        else:  # Past the stages below it.
            parts.append(past(box, end_box, position))
        if is_dense and position < len(stage_boxes) - 1:
            parts.append(past(box, end_box, position))
    for modality, features in names.items():
        box_x, width = places[modality]
        parts.append(
            text_at(box_x + width / 2, MARGIN + FONT_SIZE, modality, width, colour=colours[modality], bold=True)
        )
        chosen = {name for of, name in read if of == modality}
        for row, name in enumerate(features):
            box = boxes[modality, name]
            is_set = name not in columns.get(modality, ()) and IS_SET.fullmatch(name)
            if row and not is_set:
                parts.append(down(boxes[modality, features[row - 1]], box, faint=True))
            parts.append(feature_box(box, name, colours[modality] if name in chosen else ""))
    for stage, box in zip(stages, stage_boxes, strict=True):
        parts.append(rectangle(box, "currentColor", 0.07))
        parts.append(text_at(box.x + box.width / 2, box.y + 20, stage.name, box.width, bold=True))
        parts.append(text_at(box.x + box.width / 2, box.y + 39, stage.what, box.width))
    parts.append(rectangle(end_box, "currentColor", 0.0))
    parts.append(text_at(end_box.x + end_box.width / 2, end_box.middle + 5, end, end_box.width))
    said = "; ".join(
        f"{stage.name} ({stage.what}) reads " + ", ".join(f"{modality} {name}" for modality, name in stage.reads)
        for stage in stages
    )
    return (
        f'<svg class="mfas-network" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {height:.0f}" '
        f'width="{total:.0f}" height="{height:.0f}" role="img" aria-label="{escape(said)}">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>"
    )


def _lines_into(
    stage: Stage,
    target: Box,
    boxes: Mapping[tuple[str, str], Box],
    colours: Mapping[str, str],
    left: Sequence[str],
    right: Sequence[str],
) -> list[str]:
    """Return the lines from chosen features into a stage; each side's in the order of their heights."""
    parts = []
    for side in (left, right):
        pairs = sorted((pair for pair in stage.reads if pair[0] in side), key=lambda pair: boxes[pair].middle)
        for position, pair in enumerate(pairs):
            spread = min(PORT_SPREAD, (target.height - 8) / len(pairs))
            port = target.middle + (position - (len(pairs) - 1) / 2) * spread
            is_left = side is left
            is_next = pair[0] == (left[-1] if is_left else right[0])
            parts.append(line(boxes[pair], target, port, colours[pair[0]], is_left=is_left, is_next=is_next))
    return parts

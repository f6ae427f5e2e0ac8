"""Drawings of networks: well-formed, complete, and inert whatever names are in them."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest

from mfas_optuna.errors import PictureError
from mfas_optuna.visualization import draw_head, draw_network
from mfas_optuna.visualization.drawing import draw_parameters

from .studies import HOSTILE, failed

SVG = "{http://www.w3.org/2000/svg}"
COLUMNS = {"audio": ("a1", "a2", "a3"), "image": ("i1", "i2"), "text": ("t1",), "video": ("v1", "v2")}


def parameters(depth: int, modalities: list[str], name: str | None = None) -> dict[str, Any]:
    values: dict[str, Any] = {"depth": depth}
    for layer in range(1, depth + 1):
        values |= {f"layer{layer}.{modality}": name or COLUMNS[modality][0] for modality in modalities}
        values[f"layer{layer}.activation"] = "relu"
    return values


def texts(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def boxes(drawn: str) -> list[tuple[float, float, float, float]]:
    root = ElementTree.fromstring(drawn)
    found = []
    for element in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("n_modalities", [2, 3, 4])
def test_everything_is_drawn_once_and_inside(depth: int, n_modalities: int) -> None:
    modalities = list(COLUMNS)[:n_modalities]
    columns = {modality: COLUMNS[modality] for modality in modalities}
    drawn = draw_parameters(parameters(depth, modalities), columns)
    assert drawn is not None
    shown = texts(drawn)
    assert [text for text in shown if text.startswith("fusion")] == [f"fusion {layer}" for layer in range(1, depth + 1)]
    assert shown.count("relu") == depth
    for modality, names in columns.items():
        assert shown.count(modality) == 1
        assert all(shown.count(name) == 1 for name in names)
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    found = boxes(drawn)
    assert all(x >= 0 and y >= 0 and right <= width and bottom <= height for x, y, right, bottom in found)
    for position, (x, y, right, bottom) in enumerate(found):
        for left, top, other_right, other_bottom in found[position + 1 :]:
            assert right <= left or other_right <= x or bottom <= top or other_bottom <= y
    # A line from each modality into each layer: a path and the head of its arrow.
    coloured = [path for path in root.iter(f"{SVG}path") if path.get("fill", "").startswith("#")]
    assert len(coloured) == depth * n_modalities


def test_lines_cross_no_box() -> None:
    columns = dict.fromkeys(("a", "b", "c", "d", "e", "f"), ("1", "2", "3"))
    values = {"depth": 1, "layer1.activation": "tanh"} | {f"layer1.{name}": "2" for name in columns}
    drawn = draw_parameters(values, columns)
    assert drawn is not None
    runs = re.findall(r"([\d.]+) ([\d.]+) H([\d.]+) C", drawn)
    assert len(runs) == 4  # Of the columns further out.
    for start, y, end in runs:
        low, high = sorted((float(start), float(end)))
        for x, top, right, bottom in boxes(drawn):
            assert right <= low or high <= x or not top < float(y) < bottom


def test_chosen_features_stand_out(search: optuna.Study) -> None:
    drawn = draw_network(search)
    best = search.best_trial.params
    chosen = {value for name, value in best.items() if name.endswith((".audio", ".image"))}
    root = ElementTree.fromstring(drawn)
    faint = {"".join(text.itertext()) for text in root.iter(f"{SVG}text") if "fill-opacity" in text.attrib}
    assert not faint & (chosen - {"conv1", "conv2"})
    assert "fusion 1" in texts(drawn)
    assert draw_network(search, search.trials[0]).count("fusion 1") == 2  # Once in the label for readers.
    assert "reads audio" in root.attrib["aria-label"]


def test_names_that_are_long_or_hostile() -> None:
    long = "backbone.encoder.layers.0.self_attention_out"
    columns = {"audio": (long, HOSTILE), HOSTILE: (HOSTILE,)}
    values = {"depth": 1, "layer1.audio": long, f"layer1.{HOSTILE}": HOSTILE, "layer1.activation": HOSTILE}
    drawn = draw_parameters(values, columns)
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "style", "path", "rect", "text", "title"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert long in titles
    assert HOSTILE in titles
    assert float(root.attrib["width"]) < 800


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"kind": "mlp", "label": "all", "features": [["audio", "a1"], ["image", "i2"]], "width": 9}, "side by side"),
        ({"kind": "towers", "features": {"audio": ["a1", "a2"], "image": ["i1"]}, "width": 9}, "tower audio"),
        ({"kind": "late_heads", "features": {"audio": ["a1"], "image": ["i1"]}, "width": 9}, "mean"),
        ({"kind": "late_heads", "features": {"audio": ["a1"], "image": ["i1"]}, "width": 9, "how": "weighted"},
         "weighted mean"),
        ({"kind": "gmu", "features": {"audio": "a1", "image": "new"}, "width": 9}, "new"),
        ({"kind": "output", "modality": "image"}, "prediction"),
        ({"kind": "late_outputs", "modalities": ["audio", "image"], "how": "mean"}, "as its backbone says"),
        ({"kind": "centralnet", "features": {"audio": ["a1", "a2", "a3"], "image": ["i1", "i2"]}, "width": 9},
         "central 3"),
        (
            {
                "kind": "network",
                "notation": "[(1,1,1)]",
                "layers": [
                    {
                        "features": {"audio": ["a1"], "image": ["i1"]},
                        "activation": "gelu",
                        "operator": "concatenation",
                    }
                ],
                "width": 9,
            },
            "gelu, width 9",
        ),
    ],
)  # fmt: skip
def test_heads(record: dict[str, Any], shown: str) -> None:
    drawn = draw_head(record, {name: COLUMNS[name] for name in ("audio", "image")})
    assert drawn is not None
    assert shown in texts(drawn)


def test_modalities_of_a_central_network_end_together() -> None:
    features = {"audio": ["a1", "a2", "a3"], "image": ["i1", "i2"]}
    drawn = draw_head({"kind": "centralnet", "features": features, "width": 9}, COLUMNS)
    assert drawn is not None
    label = ElementTree.fromstring(drawn).attrib["aria-label"]
    assert "central 1 (weighted sum, width 9) reads audio a1;" in label
    assert "central 3 (weighted sum, width 9) reads audio a3, image i2" in label


def test_what_has_no_drawing() -> None:
    assert draw_head({"kind": "another"}, COLUMNS) is None
    assert draw_head({"kind": "centralnet", "features": {}, "width": 9}, COLUMNS) is None
    assert draw_head({"kind": "network", "layers": []}, COLUMNS) is None
    assert draw_parameters({"x": 1.0}, COLUMNS) is None
    with pytest.raises(PictureError, match=r"expected a complete trial to draw. No trial is complete; 3 failed."):
        draw_network(failed())
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(PictureError, match=r"trial 0 names no network. Expected the parameters depth"):
        draw_network(study)


def test_networks_of_the_extended_space() -> None:
    parameters = {
        "depth": 2, "output": "all",
        "layer1.audio": "a1", "layer1.image": "all", "layer1.activation": "tanh", "layer1.operator": "product",
        "layer2.audio": "none", "layer2.image": "i2", "layer2.activation": "relu",
        "layer2.operator": "supervised_towers",
    }  # fmt: skip
    columns = {"audio": ("a1", "a2", "best2", "all", "none"), "image": ("i1", "i2", "all", "none")}
    drawn = draw_parameters(parameters, columns)
    assert drawn is not None
    shown = texts(drawn)
    assert "product, tanh" in shown
    assert "supervised towers, relu" in shown
    assert "all" in shown  # Of what is taken; sets that are not taken are not drawn.
    assert "none" not in shown
    assert "best2" not in shown
    label = ElementTree.fromstring(drawn).attrib["aria-label"]
    assert label == (
        "fusion 1 (product, tanh) reads audio a1, image all; fusion 2 (supervised towers, relu) reads image i2"
    )
    chain = draw_parameters({**parameters, "output": "last"}, columns)
    assert chain is not None
    assert chain.count("<path") == drawn.count("<path") - 2  # The first layer's line past the second, and its head.

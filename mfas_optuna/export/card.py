"""The model card: what a person must know of an exported model, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfas_optuna.export.files import CARD, DESCRIPTION, ONNX, PROGRAM, SOURCE, WEIGHTS
from mfas_optuna.space import describe_layer, read_layer
from mfas_optuna.target import METRIC_TITLES

_FILES = {
    WEIGHTS: "all weights",
    SOURCE: "the network as plain PyTorch, which needs torch and safetensors alone",
    DESCRIPTION: "inputs and their preparation, network, classes, scores, lineage, SHA-256 of the files",
    PROGRAM: "the same as a program of torch.export, for batches of any size",
    ONNX: "the same for ONNX runtimes",
}


@dataclass(frozen=True)
class MethodScore:
    """What a way to fuse came to, for the table of scores.

    Attributes:
        title: What it is called.
        step: On frozen backbones, or together with them.
        validation: Mean score on the validation split.
        test: Mean score on the test split over the trainings that were scored there; None where none was.
        n_seeds: Trainings of the validation mean.
        n_tested: Trainings of the test mean.
    """

    title: str
    step: str
    validation: float
    test: float | None
    n_seeds: int
    n_tested: int


def write_card(
    description: Mapping[str, Any],
    *,
    data_card: str,
    licence: str,
    methods: Sequence[MethodScore],
    extra_files: Iterable[str],
) -> str:
    """Return the text of MODEL_CARD.md.

    Args:
        description: What architecture.json holds.
        data_card: Of the data.
        licence: What is known of their licence.
        methods: What else was trained, for comparison.
        extra_files: Python files of the user that lie beside the model.
    """
    return "\n".join(_lines(description, data_card, licence, methods, list(extra_files))) + "\n"


def _lines(
    description: Mapping[str, Any], data_card: str, licence: str, methods: Sequence[MethodScore], extra: Sequence[str]
) -> Iterator[str]:
    network, metrics, lineage = description["network"], description["metrics"], description["lineage"]
    metric = METRIC_TITLES[metrics["metric"]]
    yield f"# {description['title']}"
    yield ""
    if description["stand_in"]:
        yield f"**STAND-IN: {description['stand_in']}. Its scores say nothing about the real data set.**"
    else:
        yield "Trained on real data, as far as the data card says so; no stand-in."
    yield ""
    yield f"- network: `{network['label']}`"
    for number, layer in enumerate(map(read_layer, network.get("layers", [])), start=1):
        read = [f"{modality} {name}" for modality, names in layer.features.items() for name in names]
        described = describe_layer([*read, *["layer below"][: number - 1]], layer.activation, layer.operator)
        yield f"- layer {number}: {described}, width {network['width']}"
    if network.get("output") == "all":
        yield "- head: reads all layers"
    yield f"- predicts: {_target(description['target'])}"
    yield f"- trained {_STEPS[description['step']]}; seed {lineage['seed']}, the best of its seeds on validation"
    yield ""
    yield "## Use"
    yield ""
    yield "```python"
    yield "import sys, torch"
    yield ""
    yield 'sys.path.insert(0, "THIS_FOLDER")'
    yield "from model import load"
    yield ""
    yield 'model = load("THIS_FOLDER")'
    arguments = ", ".join(f"{of['argument']}={of['argument']}" for of in description["inputs"].values())
    yield "with torch.inference_mode():"
    yield f"    outputs = model({arguments})  # {description['outputs']}"
    yield "```"
    yield ""
    given = " ".join(f"{name}={name}.npy" for name in description["inputs"])
    yield f"Or, with mfas-optuna installed: `mfas-optuna predict --model THIS_FOLDER {given}`."
    yield ""
    yield "| input | type | shape of one sample | preparation |"
    yield "|---|---|---|---|"
    for name, of in description["inputs"].items():
        yield f"| {name} | {of['dtype']} | {of['shape']} | {_preparation(of['preparation'])} |"
    yield ""
    if description["rounds_features"]:
        yield (
            "The network was trained and scored on features rounded to float16. `model.fusion.rounds_features = True` "
            "rounds them too, which gives its scores to the last digit; else results differ by as much as the rounding."
        )
        yield ""
    yield "| file | what |"
    yield "|---|---|"
    for file in (*description["files"], DESCRIPTION, CARD):
        if file in _FILES:
            yield f"| {file} | {_FILES[file]} |"
    for file in extra:
        yield f"| {file} | the study's own Python file, which {SOURCE} runs for its networks |"
    yield ""
    yield "Each form was compared with the network that the study trained, on samples of the validation split:"
    checks = ", ".join(f"{file} {difference:.1e}" for file, difference in description["checks"].items())
    yield f"largest differences {checks}."
    yield ""
    yield "## Scores"
    yield ""
    test = "not read" if metrics["test"] is None else f"{metrics['test']:.4f}"
    yield f"This network, {metric}: {metrics['validation']:.4f} on validation, {test} on test."
    yield ""
    if methods:
        yield f"| method | backbones | validation {metric} | test {metric} |"
        yield "|---|---|---|---|"
        for method in methods:
            tested = "-" if method.test is None else f"{method.test:.4f} (mean of {method.n_tested})"
            yield f"| {method.title} | {method.step} | {method.validation:.4f} (mean of {method.n_seeds}) | {tested} |"
    else:
        yield "Nothing else was trained for comparison; `mfas-optuna baselines` does."
    for modality, record in description["backbones"].items():
        if record.get("validation_score") is not None:
            task = f" in its own task, {record['task']}" if record.get("task") else ""
            yield ""
            yield (
                f"The backbone of {modality} alone{task}: {record['validation_score']:.4f} on validation, "
                f"{record['test_score']:.4f} on test."
            )
    yield ""
    yield "## Data"
    yield ""
    yield "```text"
    yield data_card.strip()
    yield "```"
    yield ""
    sizes = ", ".join(f"{split} {size}" for split, size in description["splits"].items())
    yield f"Samples: {sizes}. Weights come from the training split, every choice from the validation split."
    yield ""
    yield f"Licence of the data: {licence} A model may inherit conditions of the data that it was trained on."
    yield ""
    yield "## Lineage"
    yield ""
    yield f"- study `{description['study']}`, final training: trial {lineage['final_trial']} of `{lineage['finals']}`"
    if lineage["search_trial"] is not None:
        yield f"- found by trial {lineage['search_trial']} of the search"
    yield f"- recipe: {', '.join(f'{name} {value:g}' for name, value in lineage['recipe'].items())}"
    yield f"- weights `{lineage['weights']}`"
    for modality, record in description["backbones"].items():
        yield f"- backbone of {modality} before that: `{record['digest']}`"
    yield f"- features `{lineage['features']}`"
    yield f"- trained with torch {lineage['torch']} on {lineage['device']}; exported by mfas-optuna {lineage['mfas']}"


_STEPS = {"frozen": "on frozen backbones", "unfrozen": "together with its backbones"}


def _target(target: Mapping[str, Any]) -> str:
    names = ", ".join(target["names"])
    return {"multiclass": "one class of ", "multilabel": "any of the labels ", "regression": "values "}[
        target["kind"]
    ] + names


def _preparation(preparation: Mapping[str, Any]) -> str:
    divided = "; the model divides by 255" if preparation["in_the_model"] else ""
    return f"{preparation['before']}{divided}".replace("|", "\\|")

"""`mfas-optuna export` and `mfas-optuna predict`: the found network as files, and predictions with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mfas_optuna.cli import completion
from mfas_optuna.cli.options import (
    DataRoot,
    Json,
    Mode,
    Name,
    Quiet,
    Sampler,
    Seed,
    Storage,
    Study,
    Weights,
    clear_errors,
    request_of,
)

if TYPE_CHECKING:
    from mfas_optuna.export import Model, Prediction

_MOST_CLASSES = 3


def export(
    study: Study,
    output_folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write: one that does not exist, or is empty.")
    ],
    method: Annotated[
        str, typer.Option("--method", help="Method whose network it is; best: the one that validation prefers.")
    ] = "best",
    step: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--step",
            help="frozen or unfrozen \\[default: the one that validation prefers].",
            autocompletion=completion.words("frozen", "unfrozen"),
        ),
    ] = None,
    onnx: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--onnx/--no-onnx", help="Write model.onnx \\[default: where mfas-optuna\\[onnx] is installed]."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an exported model.")] = False,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    seed: Seed = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the network that validation chose as files that need neither this program nor Optuna."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.errors import ExportError
        from mfas_optuna.export import ExportRequest, export_study
        from mfas_optuna.finals import Step
        from mfas_optuna.worker.interrupts import Interrupts

        steps: dict[str, Step] = {"frozen": "frozen", "unfrozen": "unfrozen"}
        if step is not None and step not in steps:
            raise ExportError(
                f"--step: expected frozen or unfrozen, found {step!r}. Name one of them, or leave it out."
            )
        of_study = request_of(
            study,
            name=name,
            storage=storage,
            sampler=sampler,
            mode=mode,
            seed=seed,
            data_root=data_root,
            weights=weights,
        )
        request = ExportRequest(
            spec=of_study.spec,
            study_name=of_study.study_name,
            home=of_study.home,
            storage_url=of_study.storage_url,
            data_root=of_study.data_root,
            rebuild_command=of_study.rebuild_command,
            folder=output_folder.absolute(),
            method=method,
            step=None if step is None else steps[step],
            onnx=onnx,
            force=force,
            weights=of_study.weights,
        )
        with make_view(quiet=quiet) as view, Interrupts() as interrupts, interrupts.immediate():
            exported = export_study(request, say=view.say, progress=view.progress)
        description = exported.description
        if as_json:
            output.print_json({"folder": str(exported.folder), **{key: description[key] for key in _SHOWN}})
            return
        metrics = description["metrics"]
        test = "not read" if metrics["test"] is None else f"{metrics['test']:.4f}"
        typer.echo(f"{description['title']}: validation {metrics['validation']:.4f}, test {test}")
        for file, difference in description["checks"].items():
            typer.echo(f"  {file}: differs by {difference:.1e} from the trained network")
        typer.echo(f"Wrote {exported.folder}; MODEL_CARD.md says how to use it.")


_SHOWN = ("title", "study", "method", "step", "network", "metrics", "lineage", "checks", "files", "stand_in")


def predict(
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder that `mfas-optuna export` wrote.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="INPUT=FILE.npy for each modality, or FILE.npz with an array of each: a batch, or a sample."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Predict with an exported model on new samples: classes or labels with probabilities, or values."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.export import load_model, read_inputs

        loaded = load_model(model)
        arrays, is_single = read_inputs(inputs, loaded.description)
        prediction = loaded.predict(arrays)
        if as_json:
            _print_json_of(loaded, prediction, is_single=is_single)
        else:
            _print_text(loaded, prediction)


def _print_json_of(model: Model, prediction: Prediction, *, is_single: bool) -> None:
    from mfas_optuna.cli import output

    output.print_json(
        {
            "model": model.description["title"],
            "target": model.target.kind,
            "names": list(model.target.names),
            "single": is_single,
            "predictions": prediction.as_records(),
            "stand_in": model.description["stand_in"],
        }
    )


def _print_text(model: Model, prediction: Prediction) -> None:
    if model.description["stand_in"]:
        typer.echo(f"STAND-IN: {model.description['stand_in']}.")
    for row, record in enumerate(prediction.as_records()):
        typer.echo(f"{row}: {_in_words(record)}")


def _in_words(record: dict[str, Any]) -> str:
    if "values" in record:
        return ", ".join(f"{name} {value:.6g}" for name, value in record["values"].items())
    ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])
    if "labels" in record:
        ranked = [item for item in ranked if item[0] in record["labels"]]
        return ", ".join(f"{name} {value:.4f}" for name, value in ranked) or "no label"
    return ", ".join(f"{name} {value:.4f}" for name, value in ranked[:_MOST_CLASSES])

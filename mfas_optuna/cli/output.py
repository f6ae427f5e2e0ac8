"""Results on standard output: as tables for people, as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mfas_optuna.cli.options import JSON_VERSION
from mfas_optuna.cli.pace import clock
from mfas_optuna.space import NOTHING, OPERATOR_NAMES, describe_layer
from mfas_optuna.target import METRIC_TITLES, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mfas_optuna.backbones.taps import TapInfo
    from mfas_optuna.prepare import Prepared
    from mfas_optuna.spec import StudySpec
    from mfas_optuna.trials import RankedNetwork
    from mfas_optuna.worker.estimate import Estimate
    from mfas_optuna.worker.request import DataReport, SearchOutcome, SearchRequest

UNLIMITED = 10_000
"""Columns of what is no terminal."""


def make_console() -> Console:
    """Return a console that leaves the breaking of long lines to the terminal, so that they can be copied whole.

    Tables fit into the terminal; in a pipe or a file they are as wide as they are, unless COLUMNS says otherwise.
    """
    is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, soft_wrap=True, width=None if is_narrow else UNLIMITED)


def print_json(values: Mapping[str, Any], *, on_one_line: bool = False) -> None:
    """Print a result as JSON, with the version of its schema."""
    print(json.dumps({"version": JSON_VERSION, **values}, indent=None if on_one_line else 1), flush=True)


def network_as_json(network: RankedNetwork) -> dict[str, Any]:
    """Return a ranked network as JSON values."""
    return {
        "architecture": network.architecture,
        "score": network.score,
        "n_parameters": network.n_parameters,
        "trial": network.number,
        "parameters": network.parameters,
    }


def best_table(best: Sequence[RankedNetwork], metric: Metric) -> Table:
    """Return the best networks as a table."""
    title = f"Best networks by validation {METRIC_TITLES[metric]}"
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column("rank", justify="right", min_width=4)
    table.add_column("network", min_width=max(len(network.architecture) for network in best))  # Never cut short.
    table.add_column("score", justify="right", min_width=6)
    table.add_column("parameters", justify="right", min_width=10)
    table.add_column("trial", justify="right", min_width=5)
    for rank, network in enumerate(best, start=1):
        n_parameters = "-" if network.n_parameters is None else f"{network.n_parameters:,}"
        table.add_row(str(rank), network.architecture, f"{network.score:.4f}", n_parameters, str(network.number))
    return table


def in_words(network: RankedNetwork) -> list[str]:
    """Return the layers of a network by the names of their features and activations."""
    lines = []
    for number in range(1, int(network.parameters.get("depth", 0)) + 1):
        prefix = f"layer{number}."
        choices = {
            key.removeprefix(prefix): value for key, value in network.parameters.items() if key.startswith(prefix)
        }
        activation, operator = choices.pop("activation", "?"), choices.pop("operator", OPERATOR_NAMES[0])
        taken = [f"{modality} {feature}" for modality, feature in choices.items() if feature != NOTHING]
        if len(taken) + (number > 1) < 2:  # With but one part every operator is concatenation.
            operator = OPERATOR_NAMES[0]
        layer = describe_layer(taken or [f"layer {number - 1} alone"], activation, operator)
        lines.append(f"layer {number}: {layer}")
    if network.parameters.get("output") == "all":
        lines.append("head: reads all layers")
    return lines


def alone(modality: str, task: str | None, metric: Metric, **scores: float | None) -> str:
    """Return a backbone's scores by split; in another task than the study's they do not compare with networks'."""
    what = f"{modality} alone" if task is None else f"{modality} alone, on another task ({task})"
    title = METRIC_TITLES[metric if task is None else "accuracy"]
    known = [f"{score:.4f} on {split}" for split, score in scores.items() if score is not None]
    return f"{what}: {title} " + (", ".join(known) or "not known, since its outputs are not the target's")


def print_stand_in(console: Console, stand_in: str) -> None:
    """Print what generated data stand in for; nothing for real data."""
    if stand_in:
        console.print(stand_in_text(stand_in))


def stand_in_text(stand_in: str) -> Text:
    """Return what generated data stand in for, so that it is seen."""
    return Text(f"STAND-IN: {stand_in}.", style="bold yellow")


def print_outcome(request: SearchRequest, outcome: SearchOutcome, *, as_json: bool) -> None:
    """Print what a search came to."""
    if as_json:
        print_json(
            {
                "study": request.study_name,
                "metric": request.spec.metric,
                "n_finished": outcome.n_finished,
                "n_new": outcome.n_new,
                "best": [network_as_json(network) for network in outcome.best],
                "backbones": outcome.backbones,
                "timings_s": outcome.timings_s,
                "stand_in": outcome.stand_in,
            }
        )
        return
    console = make_console()
    print_stand_in(console, outcome.stand_in)
    console.print(best_table(outcome.best, request.spec.metric))
    best = outcome.best[0]
    console.print(Text(f"\nThe best, trial {best.number}, in words:"))
    for line in in_words(best):
        console.print(Text(f"  {line}"))
    for modality, record in outcome.backbones.items():
        console.print(
            Text(alone(modality, record.get("task"), request.spec.metric, validation=record["validation_score"]))
        )
    stages = ", ".join(f"{stage} {clock(seconds)}" for stage, seconds in outcome.timings_s.items())
    console.print(Text(f"Study {request.study_name}: {outcome.n_finished} trials. Time: {stages}."), style="dim")


def print_prepared(spec: StudySpec, prepared: Prepared, *, as_json: bool) -> None:
    """Print what a study's preparation found or made."""
    if as_json:
        print_json(
            {
                "metric": spec.metric,
                "backbones": {modality: trained.as_record() for modality, trained in prepared.backbones.items()},
                "features": str(prepared.features.folder),
                "fingerprint": prepared.fingerprint,
                "timings_s": prepared.timings_s,
                "stand_in": prepared.features.stand_in,
                "data_card": prepared.card,
            }
        )
        return
    console = make_console()
    console.print(Text(prepared.card))
    for modality, trained in prepared.backbones.items():
        scores = {"validation": trained.validation_score, "test": trained.test_score}
        console.print(Text(alone(modality, trained.task, spec.metric, **scores)))
    console.print(Text(f"Features: {prepared.features.folder}"))


def print_data_report(study: str, report: DataReport, *, as_json: bool) -> None:
    """Print what is wrong with data, and their card."""
    errors = [problem for problem in report.problems if problem.is_error]
    warnings = [problem for problem in report.problems if not problem.is_error]
    if as_json:
        print_json(
            {
                "study": study,
                "is_usable": report.folder is not None,
                "problems": [asdict(problem) for problem in report.problems],
                "card": report.card,
                "folder": None if report.folder is None else str(report.folder),
            }
        )
        return
    console = make_console()
    for problem in errors:
        left_out = report.folder is not None
        console.print(Text(f"{'left out' if left_out else 'error'}: {problem}", style="yellow" if left_out else "red"))
    for problem in warnings:
        console.print(Text(f"warning: {problem}", style="yellow"))
    if report.folder is not None:
        console.print(Text(report.card.rstrip()))
        left_out_text = f", {len(errors)} left out" if errors else ""
        console.print(Text(f"Data of {study}: sound, {len(warnings)} warnings{left_out_text}. {report.folder}"))
        return
    n_samples = len({problem.sample for problem in errors if problem.sample})
    hint = (
        f" `mfas-optuna data check --study {study} --skip-bad` leaves {n_samples} samples out."
        if all(problem.sample for problem in errors)
        else ""
    )
    console.print(Text(f"Data of {study}: {len(errors)} errors, {len(warnings)} warnings.{hint}"))


def print_taps(taps: Sequence[TapInfo], *, as_json: bool) -> None:
    """Print what can be tapped in a network."""
    if as_json:
        print_json({"taps": [asdict(tap) for tap in taps]})
        return
    table = Table(show_edge=False, pad_edge=False)
    for heading, justify in (
        ("module", "left"),
        ("class", "left"),
        ("output", "left"),
        ("width", "right"),
        ("parameters", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for tap in taps:
        table.add_row(
            tap.module, tap.kind, tap.output, "-" if tap.width is None else str(tap.width), f"{tap.n_parameters:,}"
        )
    make_console().print(table)


def print_studies(studies: Sequence[tuple[str, str, str]], *, as_json: bool) -> None:
    """Print name, title and file of each study."""
    if as_json:
        print_json({"studies": [{"study": name, "title": title, "file": file} for name, title, file in studies]})
        return
    console = make_console()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, title, file in studies:
        table.add_row(Text(name), Text(title).append(f"\n{file}", style="dim"))
    console.print(table)


def print_spec(study: str, spec: StudySpec, *, as_json: bool) -> None:
    """Print a resolved study, a valid study file itself, with the size of its space."""
    space = spec.search_space()
    sizes = {"layer": space.n_layers(), "deepest": space.size_at(space.max_depth), "all_depths": space.size}
    if as_json:
        print_json(
            {"study": study, "settings": spec.model_dump(mode="json"), "sharing": spec.sharing(), "space_size": sizes}
        )
        return
    console = make_console()
    console.print(Text(_as_toml(spec.model_dump(mode="json"))))
    modalities = " x ".join(f"{len(names)} ({modality})" for modality, names in space.choices.items())
    if space.kind == "paper":
        layers = f"{modalities} x {len(space.activations)} activations = {space.n_layers()} layers"
    else:
        others = f"{len(space.activations)} activations x {len(space.operators)} operators"
        layers = f"{modalities} x {others}, {space.n_layers():,} different first layers"
    console.print(
        Text(
            f"# Space: {layers}; "
            f"{sizes['deepest']:,} networks of depth {space.max_depth}, {sizes['all_depths']:,} of all depths.\n"
            f"# Trials: {spec.n_trials_planned()}. Sharing: {spec.sharing()}. Fingerprint: {spec.fingerprint()[:12]}."
        )
    )


def _as_toml(values: Mapping[str, Any], path: str = "") -> str:
    lines = [
        f"{key} = {toml_value(value)}"
        for key, value in values.items()
        if value is not None and not isinstance(value, dict)
    ]
    text = (f"[{path}]\n" if path and lines else "") + "\n".join(lines) + ("\n" if lines else "")
    for key, value in values.items():
        if isinstance(value, dict):
            text += ("\n" if text and not text.endswith("\n\n") else "") + _as_toml(
                value, f"{path}.{key}" if path else key
            )
    return text


def toml_value(value: Any) -> str:
    """Return a JSON value as TOML: on one line, but a list of tables with a line for each."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(of)}" for key, of in value.items()) + " }"
    if isinstance(value, list) and value and all(isinstance(of, dict) for of in value):
        return "[\n" + "".join(f"  {toml_value(of)},\n" for of in value) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def print_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a search would take."""
    if as_json:
        print_json(
            {
                "n_trials": estimate.n_trials,
                "joint_size": estimate.joint_size,
                "trial_s": estimate.trial_s,
                "search_s": estimate.search_s,
                "preparation_s": estimate.preparation_s,
                "memory_bytes": estimate.memory_bytes,
                "disk_bytes": estimate.disk_bytes,
            }
        )
        return
    console = make_console()
    console.print(
        Text(
            f"Trials: {estimate.n_trials}, {estimate.trial_s:.2f} s each on average ({estimate.n_timed} timed, "
            f"{estimate.joint_size} at once)"
        )
    )
    console.print(Text(f"Search: {clock(estimate.search_s)}"))
    for stage, seconds in estimate.preparation_s.items():
        console.print(Text(f"Before it, {stage}: {clock(seconds)}"))
    console.print(Text(f"Memory: {estimate.memory_bytes / 1e6:,.0f} MB; disk: {estimate.disk_bytes / 1e6:,.0f} MB"))
    console.print(Text("Estimates from a few steps on this machine; nothing was written."), style="dim")

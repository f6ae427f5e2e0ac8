"""`mfas-optuna init` and `mfas-optuna taps`: the way to a study of networks and data of one's own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Optional, TypeVar, get_args

import typer

from mfas_optuna.cli import completion
from mfas_optuna.cli.options import DataRoot, Json, clear_errors, request_of

T = TypeVar("T")


def init(
    name: Annotated[str, typer.Argument(help="Name of the study: NAME.toml is written.")],
    arrays: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--arrays", help="Folder of features that you have extracted: see docs/own-study.md."),
    ] = None,
    python: Annotated[
        bool, typer.Option("--python", help="Networks and data are PyTorch code: NAME.py is written to begin with.")
    ] = False,
    modality: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--modality", help="Name of a modality, with --python; give it twice or more."),
    ] = None,
    target: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--target",
            help="multiclass, multilabel or regression \\[default: multiclass].",
            autocompletion=completion.words("multiclass", "multilabel", "regression"),
        ),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            "--space",
            help="extended (simple ways to fuse and their combinations) or paper (its networks alone).",
            autocompletion=completion.words("extended", "paper"),
        ),
    ] = "extended",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented study file for networks and data of your own; asks for what is not given."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.datasets.arrays import layers_of
        from mfas_optuna.errors import SpecError
        from mfas_optuna.space import SpaceKind
        from mfas_optuna.spec import check_study_name, load_spec
        from mfas_optuna.spec.template import arrays_study, python_study
        from mfas_optuna.target import METRICS

        check_study_name(name)
        if arrays is not None and python:
            raise SpecError(["init: expected --arrays or --python, found both."])
        if arrays is None and not python:
            _needs_terminal("--arrays FOLDER or --python", as_json=as_json)
            python = not typer.confirm("Have you extracted the features already, as arrays?")
            if not python:
                arrays = _ask("Folder of the arrays", _folder_of_arrays)
        if target is None and _asks() and not as_json:
            target = _ask(
                "Target: multiclass, multilabel or regression",
                lambda text: _one_of("--target", METRICS, text),
                default="multiclass",
            )
        kind = _one_of("--target", METRICS, target or "multiclass")
        space_kind = _one_of("--space", get_args(SpaceKind), space)
        study_file = Path(f"{name}.toml")
        files: dict[Path, str] = {}
        if arrays is not None:
            files[study_file] = arrays_study(name, os.path.relpath(arrays), layers_of(arrays), kind, space_kind)
        else:
            if not modality:
                _needs_terminal("--modality twice or more", as_json=as_json)
                modality = _ask("Modalities, such as image, audio", lambda text: _modalities(re.split(r"[,\s]+", text)))
            _modalities(modality)
            if not name.isidentifier():
                raise SpecError([f"init --python: expected a name that can be one in Python, found {name!r}."])
            files[study_file], files[Path(f"{name}.py")] = python_study(name, modality, kind, space_kind)
        there = [str(file) for file in files if file.exists()]
        if there and not force:
            raise SpecError([f"init: {', '.join(there)}: expected no such file. Choose another name, or add --force."])
        for file, text in files.items():
            file.write_text(text, encoding="utf-8")
        load_spec(study_file)
        if as_json:
            output.print_json({"study": str(study_file), "files": [str(file) for file in files]})
            return
        typer.echo(f"Wrote {' and '.join(map(str, files))}. Look it through, then:")
        typer.echo(f"  mfas-optuna data check --study {study_file}\n  mfas-optuna search --study {study_file}")


def taps(
    network: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="FILE.py:NAME, a function or class that returns a network when called without arguments."),
    ] = None,
    shape: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--shape", help="Shape of a sample without the batch, such as 3,224,224."),
    ] = None,
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--study", "-s", help="Instead: a study.", autocompletion=completion.studies),
    ] = None,
    modality: Annotated[Optional[str], typer.Option("--modality", help="Its modality.")] = None,  # noqa: UP045
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """List what can be a feature in a network: submodules with the shapes of their outputs."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.errors import SpecError
        from mfas_optuna.worker.data import taps_of_file, taps_of_study

        if network is not None and shape is not None and study is None:
            file, _, member = network.rpartition(":")
            sizes = shape.replace("x", ",").split(",")
            if not file or not all(size.strip().isdecimal() and int(size) for size in sizes):
                raise SpecError(
                    [f"taps: expected FILE.py:NAME and --shape 3,224,224, found {network!r} and {shape!r}."]
                )
            found = taps_of_file(Path(file), member, tuple(int(size) for size in sizes))
        elif study is not None and modality is not None and network is None:
            found = taps_of_study(request_of(study, name=None, storage=None, data_root=data_root), modality)
        else:
            raise SpecError(["taps: expected FILE.py:NAME with --shape, or --study with --modality."])
        output.print_taps(found, as_json=as_json)


def _asks() -> bool:
    return sys.stdin.isatty()


def _ask(question: str, understand: Callable[[str], T], default: str | None = None) -> T:
    """Ask until the answer can be used."""
    from mfas_optuna.errors import MfasError

    while True:
        try:
            return understand(str(typer.prompt(question, default=default)))
        except MfasError as error:
            typer.echo(f"{error}", err=True)


def _folder_of_arrays(text: str) -> Path:
    from mfas_optuna.datasets.arrays import layers_of

    layers_of(Path(text))
    return Path(text)


def _modalities(names: list[str]) -> list[str]:
    from mfas_optuna.errors import SpecError

    if len(set(names)) < max(2, len(names)) or not all(name.isidentifier() for name in names):
        found = ", ".join(map(repr, names))
        raise SpecError([f"init --python: expected two modalities or more that can be names in Python, found {found}."])
    return names


def _needs_terminal(options: str, *, as_json: bool) -> None:
    from mfas_optuna.errors import SpecError

    if as_json or not _asks():
        why = "with --json nothing is asked" if as_json else "there is no terminal to ask on"
        raise SpecError([f"init: expected {options}, since {why}. Add it."])


def _one_of(option: str, known: Iterable[T], text: str) -> T:
    from mfas_optuna.errors import SpecError

    for value in known:
        if text == value:
            return value
    raise SpecError([f"init: {option}: expected {' or '.join(map(str, known))}, found {text!r}."])

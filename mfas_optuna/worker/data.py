"""A study's data, apart from any search: built, checked, made up; and what a network can be tapped for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from mfas_optuna import python_file
from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import TapInfo, list_taps
from mfas_optuna.datasets import STAND_IN_MAKERS, DataRequest, build_dataset, load_dataset, read_mark, shape_of
from mfas_optuna.errors import CacheError, DataError, SpecError
from mfas_optuna.prepare import check_home
from mfas_optuna.spec import GivenFeatures
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.request import DataReport, Listener, SearchRequest


def build_data(request: SearchRequest, listener: Listener, *, force: bool = False) -> Path:
    """Build a study's data set when it is not there, and return its folder.

    Raises:
        MfasError: Something a user can mend is wrong; the message says what.
    """
    check_home(request.home)
    with Interrupts() as interrupts, interrupts.immediate():
        try:
            built = build_dataset(_data_request(request, listener), force=force)
        except CacheError as error:
            raise CacheError(f"{error} Add --force to build it again.") from error
    if built.folder is None:
        raise DataError("\n".join(str(problem) for problem in built.problems if problem.is_error))
    return built.folder


def check_data(request: SearchRequest, listener: Listener, *, skip_bad: bool = False) -> DataReport:
    """Read all of a study's data and report on them; what was read is kept, so that a search need not read it again.

    Args:
        request: Which study.
        listener: Told how far it is.
        skip_bad: Leave samples out that cannot be used.

    Raises:
        MfasError: There is nothing to report on, such as no data; the message says what to do.
    """
    check_home(request.home)
    with Interrupts() as interrupts, interrupts.immediate():
        wanted = _data_request(request, listener)
        try:
            built = build_dataset(wanted, skip_bad=skip_bad, again=True)
            card = "" if built.folder is None else load_dataset(wanted).card
        except CacheError as error:
            raise CacheError(f"{error} Run `{request.rebuild_command}` to build it again.") from error
    return DataReport(tuple(built.problems), card, built.folder, skip_bad)


def make_data(
    kind: str,
    folder: Path,
    listener: Listener,
    *,
    n_samples: int,
    n_classes: int,
    seed: int,
    options: Mapping[str, str],
) -> str:
    """Generate data that stand in for a data set, in its formats, into an empty folder, and return what its mark says.

    Args:
        kind: Which data set: a name of `STAND_IN_MAKERS`.
        folder: Where to.
        listener: Told how far it is.
        n_samples: How many samples.
        n_classes: How many classes.
        seed: Seed of everything.
        options: What else the maker takes.

    Raises:
        MfasError: The folder is not empty, or cannot be written.
        SpecError: There is no such maker.
    """
    if kind not in STAND_IN_MAKERS:
        raise SpecError([f"data make: expected {' or '.join(STAND_IN_MAKERS)}, found {kind!r}."])
    if options and kind != "mmimdb":
        raise SpecError([f"data make: expected no --layout, since {kind} has but one; found {options}."])
    with Interrupts() as interrupts, interrupts.immediate():
        STAND_IN_MAKERS[kind](
            folder, n_samples=n_samples, n_classes=n_classes, seed=seed, progress=listener.progress, **options
        )
    return read_mark(folder)


def taps_of_file(file: Path, name: str, sample_shape: tuple[int, ...]) -> list[TapInfo]:
    """Return what can be tapped in the network that a function of a Python file returns.

    Args:
        file: The Python file.
        name: The function or class.
        sample_shape: Shape of a sample, without the batch.

    Raises:
        MfasError: The file, the function or the network do not work.
    """
    return list_taps(python_file.network(file, name), sample_shape)


def taps_of_study(request: SearchRequest, modality: str) -> list[TapInfo]:
    """Return what can be tapped in the backbone of a study's modality.

    Raises:
        MfasError: There is no such backbone, or the data that its shape follows from are missing.
    """
    settings = request.spec.backbones.get(modality)
    if settings is None or isinstance(settings, GivenFeatures):
        known = [name for name, of in request.spec.backbones.items() if not isinstance(of, GivenFeatures)]
        raise SpecError([f"--modality: expected {' or '.join(known) or 'a network in the study'}, found {modality!r}."])
    shape = shape_of(DataRequest.of(request.spec, request.home, request.data_root))
    model = build_backbone(
        settings,
        sample_shape=shape.inputs[modality],
        n_outputs=shape.target.n_outputs,
        generator=torch.Generator().manual_seed(0),
        folder=request.spec.folder,
    )
    return list_taps(model, shape.inputs[modality])


def _data_request(request: SearchRequest, listener: Listener) -> DataRequest:
    return DataRequest.of(request.spec, request.home, request.data_root, listener.progress)

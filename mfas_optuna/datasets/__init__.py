"""Data sets: built once from their sources into the home folder, memory-mapped from there afterwards.

Some are made as a whole (digits, avmnist); those that are files of samples are found, read one by one, and reported on
(`samples`, `building`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mfas_optuna.datasets import arrays, avmnist, building, digits, npy_layout, own, shape, store
from mfas_optuna.datasets.dataset import Dataset, Split, absent_classes, check
from mfas_optuna.datasets.mmimdb import source as mmimdb
from mfas_optuna.datasets.mmimdb.make import make as make_mmimdb
from mfas_optuna.datasets.ntu import source as ntu
from mfas_optuna.datasets.ntu.make import make as make_ntu
from mfas_optuna.datasets.reference import Comparison, compare_with_paper
from mfas_optuna.datasets.samples import Problem, Source
from mfas_optuna.datasets.shape import DatasetShape
from mfas_optuna.datasets.stand_in import read_mark
from mfas_optuna.datasets.store import DIGEST_LINE
from mfas_optuna.errors import CacheError, DataError, DataNotFoundError, HomeError, MfasError
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import (
    ArraysSettings,
    AvmnistSettings,
    DatasetSettings,
    DigitsSettings,
    MmimdbSettings,
    NtuSettings,
    PythonSettings,
    StudySpec,
)

__all__ = [
    "DIGEST_LINE",
    "STAND_IN_MAKERS",
    "Built",
    "Comparison",
    "DataRequest",
    "Dataset",
    "DatasetShape",
    "Problem",
    "Split",
    "build_dataset",
    "built_fingerprint",
    "check",
    "check_sources",
    "compare_with_paper",
    "identity",
    "load_dataset",
    "read_mark",
    "shape_of",
]


_MOST_SHOWN = 20

STAND_IN_MAKERS: Mapping[str, Callable[..., None]] = {"ntu": make_ntu, "mmimdb": make_mmimdb}
"""What generates data in the formats of a data set; each marks its folder."""


@dataclass(frozen=True)
class DataRequest:
    """Which data, where they come from and where they go.

    Attributes:
        settings: Which data, and how they are made.
        home: Folder of everything that the program keeps (`MFAS_HOME`).
        data_root: Folder of raw files; only needed for data sets that are made from such.
        folder: What relative paths in the settings start from.
        tasks: Tasks that labels are needed for besides the target's; data that were built without are built again.
        layers: Of given features, the layers that are needed, by modality.
        progress: Told how far long work is.
    """

    settings: DatasetSettings
    home: Path
    data_root: Path | None
    folder: Path = Path()
    tasks: Collection[str] = ()
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    progress: Progress = silent

    @staticmethod
    def of(spec: StudySpec, home: Path, data_root: Path | None, progress: Progress = silent) -> DataRequest:
        """Return what asks for the data of a study."""
        layers = {name: [tap.name for tap in backbone.taps] for name, backbone in spec.backbones.items()}
        return DataRequest(spec.dataset, home, data_root, spec.folder, spec.tasks(), layers, progress)


@dataclass(frozen=True)
class Built:
    """Data that were built, or were there.

    Attributes:
        folder: Where they lie; None when they have errors.
        problems: Everything that was found wrong.
    """

    folder: Path | None
    problems: Sequence[Problem]


def identity(request: DataRequest) -> dict[str, Any]:
    """Return what tells data from others of the same settings, where that can be known without reading them.

    Raises:
        DataError: The mark of generated data cannot be read.
    """
    settings = request.settings
    if isinstance(settings, NtuSettings | MmimdbSettings) and request.data_root is not None:
        mark = read_mark(request.data_root)
        return {"stand_in": mark} if mark else {}
    if isinstance(settings, ArraysSettings):
        layers = {modality: list(names) for modality, names in request.layers.items()}
        return {"layers": layers, **arrays.facts(request.folder / settings.folder)}
    if isinstance(settings, PythonSettings):
        file = request.folder / settings.file
        return {"file": store.file_digest(file)} if file.is_file() else {}
    return {}


def shape_of(request: DataRequest) -> DatasetShape:
    """Return the shapes of data, from its settings, or from files that are found but not read.

    Raises:
        DataError: The files do not fit together.
        DataNotFoundError: Raw files are missing.
    """
    if isinstance(request.settings, DigitsSettings | AvmnistSettings):
        return shape.of_settings(request.settings)
    source = _find(request)
    if source is None:
        raise AssertionError("unreachable")
    return shape.of_source(source)


def check_sources(request: DataRequest) -> str:
    """Make sure that what data are made from is there, reading no samples and running no code; say what it is.

    Raises:
        DataError: The files do not fit together.
        DataNotFoundError: Files are missing; the message says which.
    """
    settings = request.settings
    if isinstance(settings, DigitsSettings):
        return "it needs no files"
    if isinstance(settings, AvmnistSettings):
        looked_at = avmnist if settings.source != "npy" else npy_layout
        return f"its raw files are in {looked_at.check_files(request.data_root)}"
    if isinstance(settings, PythonSettings):
        file = request.folder / settings.file
        if not file.is_file():
            raise DataNotFoundError(f"{file}: expected the study's Python file, found none. Mend dataset.file.")
        return f"{file} is there; `mfas-optuna data check` runs it"
    if isinstance(settings, ArraysSettings):
        return f"its arrays are in {request.folder / settings.folder}"
    source = _find(request)
    n_samples = 0 if source is None else sum(map(len, source.splits.values()))
    return f"{n_samples} samples in {request.data_root}"


def built_fingerprint(request: DataRequest) -> str | None:
    """Return the fingerprint of the data that are built, None when there are none; their arrays are not looked at.

    Raises:
        CacheError: Their manifest is damaged.
    """
    values = _settings(request)
    folder = store.final_folder(request.home, request.settings.name, values)
    if not folder.exists():
        return None
    return store.manifest_fingerprint(store.read_manifest(folder, request.settings.name, values))


def load_dataset(request: DataRequest) -> Dataset:
    """Return data, built first when they are not in the home folder yet.

    Raises:
        CacheError: The built files are damaged.
        DataError: The data cannot be used; every problem is named.
        DataNotFoundError: Raw files that have to be built from are missing.
        HomeError: The home folder cannot be written.
    """
    built = build_dataset(request)
    if built.folder is None:
        errors = [str(problem) for problem in built.problems if problem.is_error]
        more = [f"... and {len(errors) - _MOST_SHOWN} more"] if len(errors) > _MOST_SHOWN else []
        raise DataError(
            "\n".join([*errors[:_MOST_SHOWN], *more])
            + "\nRun `mfas-optuna data check` to see everything, and with --skip-bad to leave bad samples out."
        )
    return store.read(built.folder, request.settings.name, _settings(request))


def build_dataset(request: DataRequest, *, force: bool = False, skip_bad: bool = False, again: bool = False) -> Built:
    """Build what is missing and return the folder of the built data, with what is wrong with their source.

    Args:
        request: Which data, where they come from and where they go.
        force: Build again although there is something, damaged or not.
        skip_bad: Leave samples out that cannot be used.
        again: Look at the source again although the data are built, and build anew when it has changed.

    Raises:
        CacheError: What is there was built from other source files than those in the data folder, or is damaged.
        DataError: The data cannot be used, and not for single samples.
        DataNotFoundError: Raw files are missing.
        HomeError: The home folder cannot be written.
    """
    values = _settings(request)
    final = store.final_folder(request.home, request.settings.name, values)
    with store.alone(request.home, final.name, request.progress):
        return _build(request, final, values, force=force, skip_bad=skip_bad, again=again)


def _build(
    request: DataRequest, final: Path, values: dict[str, Any], *, force: bool, skip_bad: bool, again: bool
) -> Built:
    settings = request.settings
    source = None
    if final.exists() and not force:
        manifest = store.read_manifest(final, settings.name, values)
        if isinstance(settings, AvmnistSettings) and settings.source == "npy" and request.data_root is not None:
            _check_source(final, manifest["source"], npy_layout.identity(request.data_root))
        if again:
            source = _find(request)
        # Of a source without facts nobody knows whether it is the same: a check reads it again.
        is_same = source is None or (
            bool(source.facts) and source.facts == manifest["source"] and skip_bad >= bool(manifest["skipped"])
        )
        if is_same and set(request.tasks) <= set(manifest["tasks"]):
            kept = [Problem(**problem) for problem in manifest["problems"]]
            return Built(final, kept)
    source = source or _find(request)
    reading = final.with_name(f".reading-{final.name}")
    temporary = None
    try:
        problems: list[Problem] = []
        if source is not None:
            problems = [*source.problems, *building.read_all(source, reading, request.progress)]
            if any(problem.is_error and not (skip_bad and problem.sample) for problem in problems):
                if not source.facts:  # Nothing would tell that what is wrong has been mended.
                    shutil.rmtree(reading)
                return Built(None, problems)
        temporary = store.temporary_folder(final)
        if source is None:
            contents = _write(request, temporary)
        else:
            contents = building.write(source, reading, temporary, problems)
            problems = [Problem(**problem) for problem in contents.problems]
        store.write_manifest(temporary, settings.name, values, contents)
        dataset = store.read(temporary, settings.name, values)
        problems += check(dataset)
        if source is None:
            problems += absent_classes({split: of.labels for split, of in dataset.splits.items()}, dataset.target)
        store.publish(temporary, final)
        shutil.rmtree(reading, ignore_errors=True)
    except OSError as error:
        if isinstance(error, MfasError | BrokenPipeError):
            raise
        raise HomeError(
            f"{final.parent}: cannot be written: {error.strerror or error}. Free some space or set MFAS_HOME to "
            "another folder."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return Built(final, problems)


def _settings(request: DataRequest) -> dict[str, Any]:
    return {**request.settings.model_dump(mode="json"), **identity(request)}


def _find(request: DataRequest) -> Source | None:
    """Return the samples of a data set that is files of such; None for others."""
    settings = request.settings
    if isinstance(settings, NtuSettings):
        return ntu.find(settings, request.data_root)
    if isinstance(settings, MmimdbSettings):
        return mmimdb.find(settings, request.data_root)
    if isinstance(settings, ArraysSettings):
        return arrays.find(settings, request.folder, request.layers)
    if isinstance(settings, PythonSettings):
        return own.find(settings, request.folder)
    return None


def _write(request: DataRequest, folder: Path) -> store.Contents:
    settings = request.settings
    if isinstance(settings, DigitsSettings):
        return digits.write(settings, folder, request.progress)
    if not isinstance(settings, AvmnistSettings):
        raise AssertionError("unreachable")
    if settings.source == "npy":
        return npy_layout.write(settings, folder, request.data_root, request.progress)
    return avmnist.write(settings, folder, request.data_root, request.progress)


def _check_source(folder: Path, stored: Mapping[str, object], found: Mapping[str, object]) -> None:
    if found and found != stored:
        raise CacheError(
            f"{folder}: built from other arrays than those in the data folder now. Name the folder that it was built "
            "from, or build it again."
        )

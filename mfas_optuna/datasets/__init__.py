"""Data sets: built once from their sources into the home folder, memory-mapped from there afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from mfas_optuna.datasets import avmnist, digits, npy_layout, store
from mfas_optuna.datasets.dataset import Dataset, Split, check
from mfas_optuna.datasets.reference import Comparison, compare_with_paper
from mfas_optuna.errors import CacheError, HomeError, MfasError
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import AvmnistSettings, DatasetSettings, DigitsSettings

__all__ = ["Comparison", "Dataset", "Split", "build_dataset", "check", "compare_with_paper", "load_dataset"]


def load_dataset(
    settings: DatasetSettings,
    *,
    home: Path,
    data_root: Path | None,
    tasks: Collection[str] = (),
    progress: Progress = silent,
) -> Dataset:
    """Return the data of a study, built first when they are not in the home folder yet.

    Args:
        settings: Which data, and how they are made.
        home: Folder of everything that the program keeps (`MFAS_HOME`).
        data_root: Folder of raw files; only needed to build data sets that are made from such.
        tasks: Tasks that labels are needed for besides the target's.
        progress: Told how far the building is.

    Raises:
        CacheError: The built files are damaged.
        DataError: The raw data are inconsistent.
        DataNotFoundError: Raw files that have to be built from are missing.
        HomeError: The home folder cannot be written.
    """
    folder = build_dataset(settings, home=home, data_root=data_root, tasks=tasks, progress=progress)
    return store.read(folder, settings.name, settings.model_dump(mode="json"))


def build_dataset(
    settings: DatasetSettings,
    *,
    home: Path,
    data_root: Path | None,
    tasks: Collection[str] = (),
    progress: Progress = silent,
    force: bool = False,
) -> Path:
    """Build what is missing and return the folder of the built data.

    Args:
        settings: Which data, and how they are made.
        home: Folder of everything that the program keeps (`MFAS_HOME`).
        data_root: Folder of raw files.
        tasks: Tasks that labels are needed for besides the target's; data that were built without are built again.
        progress: Told how far the building is.
        force: Build again although there is something, damaged or not.

    Raises:
        CacheError: What is there was built from other source files than those in `data_root`, or is damaged.
        DataError: The raw data are inconsistent.
        DataNotFoundError: Raw files are missing.
        HomeError: The home folder cannot be written.
    """
    values = settings.model_dump(mode="json")
    final = store.final_folder(home, settings.name, values)
    if final.exists() and not force:
        manifest = store.read_manifest(final, settings.name, values)
        if isinstance(settings, AvmnistSettings) and settings.source == "npy" and data_root is not None:
            _check_source(final, manifest["source"], npy_layout.identity(data_root))
        if set(tasks) <= set(manifest["tasks"]):
            return final

    temporary = store.temporary_folder(final)
    try:
        contents = _write(settings, temporary, data_root, progress)
        store.write_manifest(temporary, settings.name, values, contents)
        check(store.read(temporary, settings.name, values))
        store.publish(temporary, final)
    except OSError as error:
        if isinstance(error, MfasError):
            raise
        raise HomeError(
            f"{final.parent}: cannot be written: {error.strerror or error}. Free some space or set MFAS_HOME to "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _write(settings: DatasetSettings, folder: Path, data_root: Path | None, progress: Progress) -> store.Contents:
    if isinstance(settings, DigitsSettings):
        return digits.write(settings, folder, progress)
    if settings.source == "npy":
        return npy_layout.write(settings, folder, data_root, progress)
    return avmnist.write(settings, folder, data_root, progress)


def _check_source(folder: Path, stored: dict[str, object], found: dict[str, object]) -> None:
    if found and found != stored:
        raise CacheError(
            f"{folder}: built from other arrays than those in the data folder now. Name the folder that it was built "
            "from, or build it again."
        )

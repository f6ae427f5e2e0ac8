"""What the command line asks of the worker, and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from mfas_optuna import spec as settings
from mfas_optuna.datasets import Problem
from mfas_optuna.spec import StudySpec
from mfas_optuna.storage import BEAT_S, GRACE_S, PATIENCE_S
from mfas_optuna.trials import RankedNetwork


class Listener(Protocol):
    """Told what a search does; must return soon."""

    def say(self, text: str) -> None:
        """Take note of a new stage or an event."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Take note of how far a long piece of work is."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Take note of a trial that has just been stored."""

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Take note of how many workers of the study live, and of its failed trials by reason."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search, and where.

    Attributes:
        spec: The resolved study.
        study_name: Its name in the database.
        home: Folder of weights, backbones, features and built data.
        storage_url: The database.
        data_root: Folder of raw data, or None.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        rebuild_command: What a user runs when a cached file is damaged.
        joint: How many networks are trained at once at most; None: as suits the study.
        weights: Folder or URL of the weights; None: in the home folder.
        beat_s: Seconds between two signs of life that a worker writes.
        grace_s: Seconds without a sign of life after which a worker is taken for dead.
        patience_s: Seconds that a worker waits at most for a database that is away.
    """

    spec: StudySpec
    study_name: str
    home: Path
    storage_url: str
    data_root: Path | None
    device: str
    rebuild_command: str
    joint: int | None = None
    weights: str | None = None
    beat_s: float = BEAT_S
    grace_s: float = GRACE_S
    patience_s: float = PATIENCE_S

    @staticmethod
    def of(
        study: str,
        *,
        name: str | None = None,
        storage: str | None = None,
        home: Path | None = None,
        sampler: str | None = None,
        mode: str | None = None,
        n_trials: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        data_root: Path | None = None,
        joint: str | None = None,
        weights: str | None = None,
    ) -> SearchRequest:
        """Return what was asked for, and where it was left open the environment's, the study file's or the default.

        Args:
            study: Name of a study, or path of a study file.
            name: Its name in the database; None: the study's, with what differs from its file.
            storage: The database; None: MFAS_STORAGE, the study file's, or mfas.db in the home folder.
            home: Folder that everything is kept in; None: MFAS_HOME, or `storage` here.
            sampler: mfas, random or tpe; None: the study file's.
            mode: Of the mfas sampler; None: the study file's.
            n_trials: How many trials; None: the study file's.
            seed: Of the search; None: the study file's.
            device: auto, cpu, cuda or cuda:N.
            data_root: Folder of raw data; None: MFAS_DATA, or none.
            joint: How many networks are trained at once, or auto; None: MFAS_JOINT, or as suits the study.
            weights: Folder or URL of the weights; None: MFAS_WEIGHTS, the study file's, or in the home folder.

        Raises:
            MfasError: There is no such study, its file is not valid, or a setting is not.
        """
        path = settings.find_study(study)
        in_file = settings.load_spec(path)
        spec = in_file.with_search(sampler=sampler, mode=mode, seed=seed, n_trials=n_trials)
        home = settings.home_folder() if home is None else home.absolute()
        return SearchRequest(
            spec=spec,
            study_name=settings.check_study_name(name or spec.default_study_name(path.stem, in_file)),
            home=home,
            storage_url=settings.storage_url(storage, spec, home),
            data_root=settings.data_root(data_root),
            device=device,
            rebuild_command=f"mfas-optuna prepare --study {study} --force",
            joint=settings.joint(joint),
            weights=settings.weights_location(weights, spec),
            beat_s=settings.beat_s(),
            grace_s=settings.grace_s(),
            patience_s=settings.patience_s(),
        )


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search came to.

    Attributes:
        study: The stored study.
        best: Its best networks, best first.
        n_finished: Complete and pruned trials of the study.
        n_new: Those of them that this call ran.
        backbones: Unimodal scores and weight digests, by modality.
        timings_s: Seconds spent in each stage, over all runs of the study.
        stand_in: What the generated data stand in for; empty for real data.
    """

    study: optuna.Study
    best: list[RankedNetwork]
    n_finished: int
    n_new: int
    backbones: dict[str, Any]
    timings_s: dict[str, float]
    stand_in: str = ""


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a check of the data came to.

    Attributes:
        problems: Everything that was found wrong, and warnings.
        card: The data card; empty when the data cannot be used.
        folder: Where the data that were read lie; None when they cannot be used.
        skip_bad: Whether samples that cannot be used were left out.
    """

    problems: tuple[Problem, ...]
    card: str
    folder: Path | None
    skip_bad: bool

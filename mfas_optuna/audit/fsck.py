"""Whether everything that a study refers to is there, whole, and fits together; nothing is changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.errors import BlobError
from mfas_optuna.features.cache import check_features
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import WRITERS, BlobStore
from mfas_optuna.spec import GivenFeatures, StudySpec

Kind = Literal["record", "blob", "lineage", "running", "budget", "slot", "backbone", "features", "final"]

GRACES = 2.0
"""A trial whose worker has been silent for so many graces should have been taken up again."""
_RECORDED = (
    records.ARCHITECTURE,
    records.N_PARAMETERS,
    records.BEST_EPOCH,
    records.TRAINING_SECONDS,
    records.SEED,
    records.JOINT_SIZE,
    records.TORCH,
    records.WEIGHTS,
)
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: What is wrong, in a word.
        where: Trial, blob or file.
        what: What was expected and what was found.
        remedy: What to do.
    """

    kind: Kind
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.remedy}"


@dataclass(frozen=True)
class Audit:
    """What an audit came to.

    Attributes:
        problems: All that was found.
        checked: How many of what were looked at.
        unsound: Digests that the store does not give, or gives damaged.
    """

    problems: list[Problem]
    checked: dict[str, int]
    unsound: list[str] = field(default_factory=list)


def silence_s(trial: FrozenTrial) -> float:
    """Return for how many seconds the worker of a running trial has given no sign of life, as far as trials tell.

    A process of this host that lives is never silent. Of others nothing is known but when the trial began.
    """
    worker = records.read_worker(trial.system_attrs)
    if worker is not None and worker.host == database.this_worker().host and not database.is_dead(worker):
        return 0.0
    return (datetime.now() - (trial.datetime_start or datetime.now())).total_seconds()


def audit(
    study: optuna.Study,
    final: optuna.Study | None,
    spec: StudySpec,
    store: BlobStore,
    home: Path,
    *,
    rebuild_command: str,
    grace_s: float,
    silence: Callable[[FrozenTrial], float] = silence_s,
    progress: Progress = silent,
) -> Audit:
    """Check everything of a study.

    Args:
        study: The search.
        final: Its final trainings; None where there are none.
        spec: Its settings.
        store: Where its weights are kept.
        home: The home folder, for the features on this machine.
        rebuild_command: What a user runs when a cached file is damaged.
        grace_s: Seconds of silence after which a worker is taken for dead.
        silence: Gives the seconds for which a running trial's worker has given no sign of life.
        progress: Told of blobs read.

    Raises:
        StoreError: The store cannot be reached.
    """
    trials = study.get_trials(deepcopy=False)
    ours = [trial for trial in trials if _is_ours(trial)]
    complete = [trial for trial in ours if trial.state == TrialState.COMPLETE]
    problems = [
        *(problem for trial in complete for problem in _record(trial)),
        *_lineage(complete),
        *_running(trials, grace_s, silence),
        *_budget(ours, spec),
        *_slots(ours),
        *_backbones(study, spec, has_trials=bool(complete)),
        *([] if final is None else _finals(final)),
    ]
    referrers = _referrers(study, final, complete)
    unsound = _check_blobs(store, list(referrers), progress)
    problems += [_blob_problem(digest, why, referrers[digest], rebuild_command) for digest, why in unsound.items()]
    features, found = _features(study, spec, home, rebuild_command)
    checked = {
        "trials": len(trials),
        "complete": len(complete),
        "finals": 0 if final is None else len(finals.read(final)),
        "blobs": len(referrers),
        "features": features,
    }
    return Audit([*problems, *found], checked, list(unsound))


def _is_ours(trial: FrozenTrial) -> bool:
    """Return whether a worker ran a trial; others were added by hand, and hold whatever they hold."""
    attributes = trial.system_attrs
    return records.read_worker(attributes) is not None or records.read_proposal(attributes) is not None


# Trials.


def _record(trial: FrozenTrial) -> Iterator[Problem]:
    where = f"trial {trial.number}"
    remedy = "It was not written by this program as it is now; leave it out by searching under another --name."
    value = trial.values[0] if trial.values else None
    if value is None or not math.isfinite(value):
        yield Problem("record", where, f"expected a finite score, found {value}.", remedy)
    missing = [key for key in _RECORDED if key not in trial.user_attrs]
    if missing:
        yield Problem("record", where, f"its record lacks {', '.join(missing)}.", remedy)
        return
    try:
        n_layers = len(records.read_weights(trial.user_attrs))
    except (ValueError, TypeError) as error:
        yield Problem("record", where, f"the lineage of its weights cannot be read: {error}.", remedy)
        return
    if n_layers != trial.params.get("depth"):
        what = f"expected weights of {trial.params.get('depth')} layers, found {n_layers}."
        yield Problem("record", where, what, remedy)
    best = trial.intermediate_values.get(trial.user_attrs[records.BEST_EPOCH])
    if best != value:
        what = f"expected its score {value} in epoch {trial.user_attrs[records.BEST_EPOCH]}, found {best}."
        yield Problem("record", where, what, remedy)


def _weights(trial: FrozenTrial) -> list[records.LayerWeights]:
    try:
        return records.read_weights(trial.user_attrs)
    except (ValueError, TypeError):  # Reported as a record that cannot be read.
        return []


def _lineage(complete: Sequence[FrozenTrial]) -> Iterator[Problem]:
    publishers: dict[tuple[str, str], set[int]] = {}
    for trial in complete:
        for layer in _weights(trial):
            publishers.setdefault((layer.key, layer.published), set()).add(trial.number)
    for trial in complete:
        for index, layer in enumerate(_weights(trial)):
            if layer.started_from is None or publishers.get((layer.key, layer.started_from), set()) - {trial.number}:
                continue
            yield Problem(
                "lineage",
                f"trial {trial.number}, layer {index}",
                f"it started from {layer.started_from[:12]}…, which no other complete trial published for {layer.key}.",
                "Its score rests on weights of a trial that does not count. Search under another --name to be rid of "
                "it, and please report how it came about.",
            )


def _running(
    trials: Sequence[FrozenTrial], grace_s: float, silence: Callable[[FrozenTrial], float]
) -> Iterator[Problem]:
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        silent_s = silence(trial)
        if silent_s > GRACES * grace_s:
            yield Problem(
                "running",
                f"trial {trial.number}",
                f"it is RUNNING, and its worker has given no sign of life for {silent_s:.0f} s.",
                "Start a worker of the study: it takes the trial up again. If its worker lives, raise --grace.",
            )


def _budget(ours: Sequence[FrozenTrial], spec: StudySpec) -> Iterator[Problem]:
    if spec.search.n_trials is None and spec.search.sampler == "mfas":
        return  # Its schedule is the budget, place by place.
    planned, n_finished = spec.n_trials_planned(), sum(trial.state in _FINISHED for trial in ours)
    if n_finished > planned:
        yield Problem(
            "budget",
            "the study",
            f"expected {planned} finished trials at most, found {n_finished}.",
            "If it was searched with another --trials, name it here too; otherwise please report it.",
        )


def _slots(ours: Sequence[FrozenTrial]) -> Iterator[Problem]:
    held: dict[tuple[int, int, int], list[int]] = {}
    for trial in ours:
        place = records.read_proposal(trial.system_attrs)
        if place is None or not place.is_scheduled or place.is_over_draw or place.is_surplus:
            continue
        if trial.state in _FINISHED:
            held.setdefault((place.iteration, place.depth, place.slot), []).append(trial.number)
    for (iteration, depth, slot), numbers in sorted(held.items()):
        if len(numbers) > 1:
            yield Problem(
                "slot",
                f"iteration {iteration + 1}, depth {depth}, slot {slot}",
                f"expected one finished trial, found {', '.join(map(str, numbers))}.",
                "All of them count; the search took more trials than planned. Please report it.",
            )


# What the study and the final trainings record.


def _backbones(study: optuna.Study, spec: StudySpec, *, has_trials: bool) -> Iterator[Problem]:
    networks = [name for name, of in spec.backbones.items() if not isinstance(of, GivenFeatures)]
    stored = records.read_backbones(study)
    if not has_trials and stored is None:
        return
    lacking = [name for name in networks if not (stored or {}).get(name, {}).get("digest")]
    if lacking or records.read_features(study) is None:
        what = f"its record lacks the backbones of {', '.join(lacking)}." if lacking else "its record lacks features."
        yield Problem("backbone", "the study", what, "Scores cannot be traced; search under another --name.")


def _finals(final: optuna.Study) -> Iterator[Problem]:
    numbers = set()
    remedy = "Train it again in a study of another --name."
    for trial in final.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        numbers.add(trial.number)
        where = f"{final.study_name}, trial {trial.number}"
        stored = finals.of_trial(trial)
        if stored is None:
            yield Problem("final", where, "it has no record of a final training.", remedy)
        elif not math.isfinite(stored.result.validation_score) or trial.values != [stored.result.validation_score]:
            what = f"expected the score of its record, {stored.result.validation_score}, found {trial.values}."
            yield Problem("final", where, what, remedy)
    for entry in finals.read_ledger(final):
        if entry.trial is not None and entry.trial not in numbers:
            what = f"it scores trial {entry.trial} ({entry.what}), which is no complete one."
            yield Problem("final", f"{final.study_name}, ledger of {entry.time}", what, remedy)


# Files.


def _referrers(
    study: optuna.Study, final: optuna.Study | None, complete: Sequence[FrozenTrial]
) -> dict[str, list[str]]:
    """Return who refers to each digest."""
    found: dict[str, list[str]] = {}
    for modality, backbone in (records.read_backbones(study) or {}).items():
        if isinstance(backbone, dict) and backbone.get("digest"):
            found.setdefault(backbone["digest"], []).append(f"backbone of {modality}")
    for trial in complete:
        for index, layer in enumerate(_weights(trial)):
            found.setdefault(layer.published, []).append(f"trial {trial.number}, layer {index}")
    if final is not None:
        for stored in finals.read(final):
            if stored.result.weights:
                found.setdefault(stored.result.weights, []).append(f"{final.study_name}, trial {stored.number}")
    return found


def _check_blobs(store: BlobStore, digests: Sequence[str], progress: Progress) -> dict[str, str]:
    """Return the digests of blobs that are missing or damaged, and why."""

    def check(digest: str) -> str | None:
        try:
            store.check(digest)
        except BlobError as error:
            return str(error)
        return None

    unsound = {}
    with ThreadPoolExecutor(max_workers=WRITERS) as readers:
        for done, (digest, why) in enumerate(zip(digests, readers.map(check, digests), strict=True), start=1):
            progress("reading weights", done, len(digests))
            if why is not None:
                unsound[digest] = why
    return unsound


def _blob_problem(digest: str, why: str, referrers: Sequence[str], rebuild_command: str) -> Problem:
    more = f" and {len(referrers) - 1} more" if len(referrers) > 1 else ""
    remedy = "`--repair` puts back a copy that this machine has; else copy it from a backup or another machine."
    if any(name.startswith("backbone") for name in referrers):
        remedy += f" Where training always gives the same weights, `{rebuild_command}` makes it again."
    elif all(name.startswith("trial") for name in referrers):
        remedy += " Without it later trials start from the version before, and no result is lost."
    return Problem("blob", f"{referrers[0]}{more}", why, remedy)


def _features(study: optuna.Study, spec: StudySpec, home: Path, rebuild_command: str) -> tuple[int, list[Problem]]:
    """Return how many feature sets are on this machine, and what is wrong with them."""
    key = records.read_features(study)
    folder = home / "features" / f"{spec.dataset.name}-{(key or '')[:12]}"
    if key is None or not folder.exists():
        return 0, []
    return 1, [
        Problem("features", where, what, f"Run `{rebuild_command}` to rebuild it.")
        for where, what in check_features(folder)
    ]

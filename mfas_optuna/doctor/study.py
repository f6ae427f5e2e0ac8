"""What a study reads: its data, backbones, features and weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mfas_optuna.datasets import DataRequest, built_fingerprint, check_sources
from mfas_optuna.doctor.finding import Finding, Subject
from mfas_optuna.errors import CacheError, DataNotFoundError, MfasError
from mfas_optuna.prepare import Preparation, blob_store
from mfas_optuna.spec import StudySpec

PATIENCE_S = 5.0
"""A store that is away is not waited for longer."""


def weights(home: Path, location: str | None) -> list[Finding]:
    """Return whether the store of weights can be read; writing is not tried."""
    try:
        store = blob_store(home, location, patience_s=PATIENCE_S)
        if location is None or "://" not in location:
            is_there = Path(store.location).is_dir()
            what = store.location if is_there else f"{store.location}, which is made when it is first written"
        else:
            is_there = "0" * 64 in store  # Asks the store; no blob has this digest.
            what = f"{store.location}: answers"
    except MfasError as error:
        return [Finding("weights", "store", "problem", str(error))]
    return [Finding("weights", "store", "ok", what)]


def inputs(subject: Subject) -> list[Finding]:
    """Return whether the data, backbones and features of the study are there; none where no study was named."""
    if subject.spec is None:
        return []
    findings = list(_data(subject, subject.spec))
    try:
        findings += _prepared(subject, subject.spec)
    except MfasError as error:
        findings.append(Finding("study", "preparation", "problem", str(error)))
    return findings


def _data(subject: Subject, spec: StudySpec) -> Iterator[Finding]:
    request = DataRequest.of(spec, subject.home, subject.data_root)
    name = f"data {spec.dataset.name}"
    try:
        fingerprint = built_fingerprint(request)
    except CacheError as error:
        again = f"Run `mfas-optuna prepare --study {subject.study} --force`."
        yield Finding("study", name, "problem", str(error), again)
        return
    except MfasError as error:
        yield Finding("study", name, "problem", str(error))
        return
    if fingerprint is not None:
        yield Finding("study", name, "ok", f"built, digest {fingerprint[:12]}")
        return
    try:
        what = check_sources(request)
    except MfasError as error:
        yield Finding("study", name, "problem", str(error))
        return
    yield Finding("study", name, "ok", f"not built yet; {what}")


def _prepared(subject: Subject, spec: StudySpec) -> Iterator[Finding]:
    try:
        preparation = Preparation(
            spec,
            home=subject.home,
            data_root=subject.data_root,
            device=torch.device("cpu"),
            rebuild_command=f"mfas-optuna prepare --study {subject.study} --force",
            weights=subject.weights,
        )
        found = preparation.look()
    except DataNotFoundError:  # Said of the data already; without them nobody knows which features those would be.
        return
    for modality, trained in found.backbones.items():
        name = f"backbone {modality}"
        if trained is None:
            yield Finding("study", name, "ok", "not made yet; the first search makes it")
        else:
            score = "" if trained.validation_score is None else f", validation score {trained.validation_score:.4f}"
            yield Finding("study", name, "ok", f"made, digest {trained.digest[:12]}{score}")
    if found.features is None:
        yield Finding("study", "features", "ok", "not made yet; the first search makes them")
    else:
        yield Finding("study", "features", "ok", str(found.features))

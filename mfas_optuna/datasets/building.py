"""Reading every sample of a source once, in threads, into arrays; going on where an interrupted reading stopped.

What is read lies in `.reading-NAME` beside the built data until all of it is there: an array for each split and
modality, one of what became of each row, and the problems found. Decoding videos and pictures leaves Python's lock
free, so threads use all cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import store
from mfas_optuna.datasets.card import describe
from mfas_optuna.datasets.dataset import SPLIT_NAMES, absent_classes, label_array
from mfas_optuna.datasets.samples import Modality, Problem, Sample, SampleError, Source
from mfas_optuna.errors import DataError
from mfas_optuna.progress import Progress
from mfas_optuna.spec import fingerprint
from mfas_optuna.target import Target

_STATE = "reading.json"
_PROBLEMS = "problems.jsonl"
_CHECKPOINT_S = 10.0
_ROWS_AT_ONCE = 256
_MOST_NAMED = 10

_WAITING, _READ, _BAD = 0, 1, 2

Row = Mapping[str, npt.NDArray[np.generic]]


def read_all(source: Source, folder: Path, progress: Progress) -> list[Problem]:
    """Read every sample that an earlier call has not, into the arrays of a folder, and return what is wrong with them.

    Args:
        source: The samples.
        folder: Where to; what lies there of another source is removed.
        progress: Told how far it is.
    """
    key = fingerprint(
        {
            "facts": source.facts,
            "modalities": {name: [list(m.shape), m.dtype] for name, m in source.modalities.items()},
            "samples": {split: [sample.name for sample in samples] for split, samples in source.splits.items()},
        }
    )
    arrays = _open(folder, key, source)
    problems = [Problem(**json.loads(line)) for line in (folder / _PROBLEMS).read_text(encoding="utf-8").splitlines()]
    n_all = sum(map(len, source.splits.values()))
    n_done = sum(int((arrays[split][_STATE] != _WAITING).sum()) for split in source.splits)
    n_threads = 1 if source.reads_here else _n_threads()
    for split, samples in source.splits.items():
        states = arrays[split][_STATE]
        rows = np.flatnonzero(states == _WAITING)
        found: list[Problem] = []
        ended: list[tuple[int, int]] = []
        saved_at = time.monotonic()
        outcomes = _read(source, [samples[row] for row in rows.tolist()], n_threads)
        for row, outcome in zip(rows.tolist(), outcomes, strict=True):
            if isinstance(outcome, Problem):
                found.append(outcome)
            else:
                for modality, value in outcome.items():
                    arrays[split][modality][row] = value
            ended.append((row, _BAD if isinstance(outcome, Problem) else _READ))
            n_done += 1
            progress("reading samples", n_done, n_all)
            if time.monotonic() - saved_at > _CHECKPOINT_S:
                _save(folder, arrays[split], ended, found)
                problems += found
                found, ended, saved_at = [], [], time.monotonic()
        _save(folder, arrays[split], ended, found)
        problems += found
    return problems


def write(source: Source, reading: Path, folder: Path, problems: Sequence[Problem]) -> store.Contents:
    """Write what was read, without the rows of samples that have problems, as built data.

    Args:
        source: The samples.
        reading: Folder that `read_all` filled.
        folder: Where to.
        problems: What to leave out.

    Raises:
        DataError: A split would be empty, or the training split without samples of a class.
    """
    bad = {problem.sample for problem in problems if problem.sample and problem.is_error}
    kept = {split: [sample for sample in source.splits[split] if sample.name not in bad] for split in SPLIT_NAMES}
    for split, samples in kept.items():
        if not samples:
            raise DataError(f"{split}: no sample is left. Every split needs some; mend the files that are named.")
    labels = _labels(kept, source.target)
    absent = list(absent_classes(labels, source.target))
    if any(problem.is_error for problem in absent):
        raise DataError("\n".join(str(problem) for problem in absent if problem.is_error))
    known = set(absent_classes(_labels(source.splits, source.target), source.target))
    for split in SPLIT_NAMES:
        stored = store.create_array(store.labels_file(folder, split), labels[split].shape, labels[split].dtype)
        stored[:] = labels[split]
        stored.flush()
        is_kept = [sample.name not in bad for sample in source.splits[split]]
        rows = np.flatnonzero(is_kept)
        for modality, what in source.modalities.items():
            file = store.array_file(reading, split, modality)
            if all(is_kept):
                _move(file, store.array_file(folder, split, modality))
                continue
            read = np.load(file, mmap_mode="r", allow_pickle=False)
            array = store.create_array(store.array_file(folder, split, modality), (len(rows), *what.shape), what.dtype)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                array[start : start + _ROWS_AT_ONCE] = read[rows[start : start + _ROWS_AT_ONCE]]
            array.flush()
    inputs = {
        split: {
            modality: np.load(store.array_file(folder, split, modality), mmap_mode="r", allow_pickle=False)
            for modality in source.modalities
        }
        for split in SPLIT_NAMES
    }
    skipped = sorted(bad)
    warnings = [*(problem for problem in absent if problem not in known), *_leaks(kept, inputs)]
    return store.Contents(
        card=describe(source.card, source.target, labels, inputs, stand_in=source.stand_in, skipped=skipped),
        target=source.target,
        modalities=tuple(source.modalities),
        source=source.facts,
        layouts={name: modality.layout for name, modality in source.modalities.items()},
        stand_in=source.stand_in,
        skipped=tuple(skipped),
        problems=tuple(asdict(problem) for problem in (*problems, *warnings)),
    )


def _labels(splits: Mapping[str, Sequence[Sample]], target: Target) -> dict[str, npt.NDArray[np.generic]]:
    return {split: label_array([sample.label for sample in splits[split]], target) for split in SPLIT_NAMES}


def _move(file: Path, to: Path) -> None:
    """Let a file lie at a second place, so that nothing need be read again if this is interrupted; else move it."""
    try:
        os.link(file, to)
    except OSError:  # Not on every file system.
        (file.parent / _STATE).unlink(missing_ok=True)  # What is left does not count as read.
        file.rename(to)


def _leaks(
    samples: Mapping[str, Sequence[Sample]], inputs: Mapping[str, Mapping[str, npt.NDArray[np.generic]]]
) -> Iterator[Problem]:
    """Warn of samples that equal one of an earlier split in every modality, whatever they are called."""
    seen: dict[bytes, str] = {}
    for split, of_split in samples.items():
        equal: list[str] = []
        new: dict[bytes, str] = {}
        for row, sample in enumerate(of_split):
            digest = hashlib.blake2b(digest_size=16)
            for array in inputs[split].values():
                digest.update(np.ascontiguousarray(array[row]).data)
            key = digest.digest()
            if key in seen:
                equal.append(f"{sample.name} (as {seen[key]})")
            new.setdefault(key, sample.name)
        if equal:
            more = f" and {len(equal) - _MOST_NAMED} more" if len(equal) > _MOST_NAMED else ""
            yield Problem(
                split,
                f"the same in every modality as a sample of another split: {', '.join(equal[:_MOST_NAMED])}{more}.",
                "Keep one of each, or scores are better than they should be.",
                is_error=False,
            )
        seen = {**new, **seen}


def _n_threads() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _open(folder: Path, key: str, source: Source) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Return the arrays of each split by modality, and under `_STATE` what became of each row."""
    state = folder / _STATE
    if not (state.is_file() and state.read_text(encoding="utf-8") == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for split, samples in source.splits.items():
            for modality, what in source.modalities.items():
                store.create_array(store.array_file(folder, split, modality), (len(samples), *what.shape), what.dtype)
            store.create_array(store.array_file(folder, split, _STATE), (len(samples),), np.uint8)
        (folder / _PROBLEMS).touch()
        state.write_text(key, encoding="utf-8")
    return {
        split: {
            what: np.load(store.array_file(folder, split, what), mmap_mode="r+", allow_pickle=False)
            for what in (*source.modalities, _STATE)
        }
        for split in source.splits
    }


def _save(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], ended: Sequence[tuple[int, int]], found: Sequence[Problem]
) -> None:
    """Bring rows to disk, then their problems, then what became of them: a kill between repeats them."""
    for name, array in arrays.items():
        if name != _STATE and isinstance(array, np.memmap):
            array.flush()
    with (folder / _PROBLEMS).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(problem)) + "\n" for problem in found)
        file.flush()
        os.fsync(file.fileno())
    states = arrays[_STATE]
    for row, state in ended:
        states[row] = state
    if isinstance(states, np.memmap):
        states.flush()


def _read(source: Source, samples: Sequence[Sample], n_threads: int) -> Iterator[Row | Problem]:
    """Yield what each sample is, in order; a few more than there are threads are under way."""

    def read(sample: Sample) -> Row | Problem:
        try:
            row = source.read(sample)
            for modality, what in source.modalities.items():
                _check(sample, modality, what, row)
        except SampleError as error:
            return error.problem
        return row

    if n_threads == 1:
        yield from map(read, samples)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="reading") as threads:
        waiting: deque[Future[Row | Problem]] = deque()
        try:
            for sample in samples:
                waiting.append(threads.submit(read, sample))
                if len(waiting) >= 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _check(sample: Sample, modality: str, what: Modality, row: Row) -> None:
    def refuse(rule: str) -> SampleError:
        return SampleError(
            Problem(
                f"{sample.name}, {modality}", rule, "Mend the sample, or leave it out with --skip-bad.", sample.name
            )
        )

    if modality not in row:
        raise refuse(f"the modality is missing; there is {', '.join(row) or 'nothing'}.")
    value = row[modality]
    if value.shape != what.shape:
        raise refuse(f"expected shape {list(what.shape)}, found {list(value.shape)}.")
    if value.dtype != what.dtype:
        raise refuse(f"expected {what.dtype}, found {value.dtype}.")
    if what.dtype == "float32" and not np.isfinite(value).all():
        where = np.argwhere(~np.isfinite(value))[0].tolist()
        raise refuse(f"expected finite numbers, found {value[tuple(where)]} at {where}.")

"""Features that the user has extracted already: an array for each modality and layer, labels, and splits.

A folder holds `labels.npy` and for each modality either `MODALITY/LAYER.npy` or `MODALITY.safetensors` with a tensor
for each layer; rows are samples. Splits are given by folders `train`, `validation` and `test` that hold these files
each, or by `splits.npy` beside them with a name for each row; those that are missing are made of the training rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import store
from mfas_optuna.datasets.dataset import SPLIT_NAMES, absent_classes, label_array
from mfas_optuna.datasets.partition import hold_out
from mfas_optuna.datasets.samples import Modality, Problem, Sample, SampleError, Source
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import ArraysSettings, PythonSettings, fingerprint
from mfas_optuna.target import Target, TargetKind

Array = npt.NDArray[Any]

_LEAVE_OUT = "Mend the row, or leave it out with --skip-bad."


def input_name(modality: str, layer: str) -> str:
    """Return what a layer of a modality is called among the inputs of the data set."""
    return f"{modality}.{layer}"


def layers_of(folder: Path) -> dict[str, dict[str, int]]:
    """Return the layers of each modality that a folder has arrays of, each with its number of channels.

    Raises:
        DataError: A file is not an array.
        DataNotFoundError: There is no such folder, or it does not have two modalities.
    """
    root = folder / "train" if (folder / "train").is_dir() else folder
    layers: dict[str, dict[str, int]] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.suffix == ".safetensors":
            layers[path.stem] = {name: _n_channels(array) for name, array in _load_safetensors(path).items()}
        elif path.is_dir() and (files := sorted(path.glob("*.npy"))):
            layers[path.name] = {file.stem: _n_channels(_load(file)) for file in files}
    if len(layers) < 2:
        raise DataNotFoundError(
            f"{folder}: expected arrays of two modalities or more, MODALITY/LAYER.npy or MODALITY.safetensors, found "
            f"{', '.join(layers) or 'none'}. Name the folder that holds labels.npy and them."
        )
    return layers


def facts(folder: Path) -> dict[str, Any]:
    """Return what tells the files of a folder from others: names and sampled digests."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".npy", ".safetensors"))
    described = [[str(file.relative_to(folder)), store.sampled_digest(file)] for file in files]
    return {"n_files": len(files), "files": fingerprint(described)}


def find(settings: ArraysSettings, folder: Path, layers: Mapping[str, Sequence[str]]) -> Source:
    """Find the arrays of a folder.

    Args:
        settings: Which target, and how missing splits are made.
        folder: The study file's folder, which `settings.folder` is relative to.
        layers: The layers that are needed, by modality.

    Raises:
        DataError: Files do not fit together.
        DataNotFoundError: There is no such folder, or files are missing.
    """
    root = (folder / settings.folder).absolute()
    if not root.is_dir():
        raise DataNotFoundError(
            f"{root}: expected a folder with the arrays of the study, found none. Mend [dataset] folder in the study "
            "file."
        )
    given = [split for split in SPLIT_NAMES if (root / split).is_dir()]
    parts = {split: _Part(root / split, layers) for split in given} if given else {"": _Part(root, layers)}
    problems = [problem for part in parts.values() for problem in part.problems(parts)]
    if problems:
        raise DataError("\n".join(map(str, problems)))
    target = target_of({split: part.labels for split, part in parts.items()}, settings.target, settings.classes)
    first = next(iter(parts.values()))
    rows = {split: [(split, row) for row in range(len(part.labels))] for split, part in parts.items()}
    if not given:
        rows = _divided(root, len(first.labels))
    labels = {
        split: label_array([parts[part].labels[row] for part, row in of_split], target)
        for split, of_split in rows.items()
    }
    splits = {
        split: [
            Sample(f"{part or 'row'} {row}".strip(), labels[split][position], (part, row))
            for position, (part, row) in enumerate(of_split)
        ]
        for split, of_split in rows.items()
    }
    problems = list(label_problems(splits, target))
    complete_splits, said = complete(splits, target, settings)
    text = f"arrays: features that were extracted before, from {settings.folder}. Outputs with positions were averaged."
    return Source(
        splits=complete_splits,
        target=target,
        modalities={name: Modality((array.shape[1],), "float32", "vector") for name, array in first.arrays.items()},
        read=lambda sample: _read(parts, sample),
        facts=facts(root),
        card=text + said,
        problems=[*problems, *absent_from(complete_splits, target, problems)],
        reads_here=True,
    )


class _Part:
    """The arrays of one folder, memory-mapped."""

    def __init__(self, folder: Path, layers: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self._layers = layers
        self.labels = _load(folder / "labels.npy")
        self.arrays = dict(self._arrays())

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        for modality, names in self._layers.items():
            packed = self.folder / f"{modality}.safetensors"
            tensors = _load_safetensors(packed) if packed.is_file() else None
            for name in names:
                if tensors is None:
                    array = _load(self.folder / modality / f"{name}.npy")
                elif name in tensors:
                    array = tensors[name]
                else:
                    raise DataNotFoundError(
                        f"{packed}: expected a tensor {name!r}, found {', '.join(tensors)}. Mend the study's features."
                    )
                yield input_name(modality, name), array

    def problems(self, parts: Mapping[str, _Part]) -> Iterator[Problem]:
        first = next(iter(parts.values()))
        for name, array in self.arrays.items():
            where = f"{self.folder}, {name}"
            if array.dtype.kind not in "fiu":
                yield Problem(where, f"expected numbers, found {array.dtype}.", "Convert the array.")
            if array.ndim < 2:
                yield Problem(where, f"expected [n, channels, ...], found {list(array.shape)}.", "Mend the array.")
            elif len(array) != len(self.labels):
                yield Problem(where, f"{len(array)} rows for {len(self.labels)} labels.", "Each label needs one row.")
            elif array.shape[1] != first.arrays[name].shape[1]:
                found = f"{array.shape[1]} channels, {first.folder.name} has {first.arrays[name].shape[1]}."
                yield Problem(where, found, "All splits need the same.")


def _n_channels(array: Array) -> int:
    return int(array.shape[1]) if array.ndim > 1 else 1


def _load(file: Path) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{file}: expected an array, found no such file. Add it.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected a .npy file of numbers: {error}. Save it with numpy.save.") from error
    return array


def _load_safetensors(file: Path) -> Mapping[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: Mapping[str, Array] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file}: expected a .safetensors file: {error}. Save it again.") from error
    return tensors


def _divided(root: Path, n: int) -> dict[str, list[tuple[str, int]]]:
    """Return the rows of each split, as `splits.npy` says; all of them train where there is no such file."""
    file = root / "splits.npy"
    if not file.is_file():
        return {"train": [("", row) for row in range(n)]}
    names = _load(file)
    if names.dtype.kind != "U" or names.shape != (n,) or not set(names.tolist()) <= set(SPLIT_NAMES):
        found = f"{names.dtype} {list(names.shape)}" if names.dtype.kind != "U" else sorted(set(names.tolist()))
        raise DataError(
            f"{file}: expected {n} texts, each {' or '.join(map(repr, SPLIT_NAMES))}, found {found}. Mend the file."
        )
    return {
        split: [("", int(row)) for row in np.flatnonzero(names == split)] for split in SPLIT_NAMES if split in names
    }


def _read(parts: Mapping[str, _Part], sample: Sample) -> dict[str, Array]:
    part, row = sample.at
    values = {}
    for name, array in parts[part].arrays.items():
        value = np.asarray(array[row], dtype=np.float32)
        values[name] = value.reshape(len(value), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
        if not np.isfinite(values[name]).all():
            found = value[~np.isfinite(value)][0]
            raise SampleError(
                Problem(
                    f"{parts[part].folder}, {name}, row {row}",
                    f"expected finite numbers, found {found}.",
                    _LEAVE_OUT,
                    sample.name,
                )
            )
    return values


# Shared with data sets of the user's own code.


def target_of(labels: Mapping[str, Array], kind: TargetKind, names: Sequence[str] | None) -> Target:
    """Return the target that labels are of: as many classes, labels or values as are named, or as occur.

    Raises:
        DataError: Labels are no numbers, or have another shape than their kind asks for.
    """
    problems = []
    for split, of_split in labels.items():
        where = f"labels of {split}" if split else "labels"
        if of_split.dtype.kind not in "fiub" or (kind != "regression" and not _are_whole(of_split)):
            problems.append(
                f"{where}: expected {'numbers' if kind == 'regression' else 'whole numbers'}, found {of_split.dtype}."
            )
        elif of_split.ndim != (1 if kind == "multiclass" else 2):
            expected = "[n]" if kind == "multiclass" else "[n, number of labels or values]"
            problems.append(f"{where}: a {kind} target needs {expected}, found {list(of_split.shape)}.")
    if problems:
        raise DataError("\n".join(f"{problem} Mend the labels, or [dataset] target." for problem in problems))
    if names is not None:
        return Target(kind, tuple(names))
    if kind == "multiclass":
        return Target.of_classes(1 + max(int(of_split.max(initial=0)) for of_split in labels.values()))
    return Target(kind, tuple(map(str, range(next(iter(labels.values())).shape[1]))))


def _are_whole(labels: Array) -> bool:
    return labels.dtype.kind in "iub" or bool((labels == np.rint(labels)).all())


def label_problems(splits: Mapping[str, Sequence[Sample]], target: Target) -> Iterator[Problem]:
    """Yield the samples whose label is out of range, not finite, or of another width than the target."""
    for sample in itertools.chain.from_iterable(splits.values()):
        value = np.asarray(sample.label)
        if target.kind == "regression":
            is_wrong, expected = not np.isfinite(value).all(), "finite numbers"
        else:
            most = target.n_outputs - 1 if target.kind == "multiclass" else 1
            is_wrong, expected = bool((value < 0).any() or (value > most).any()), f"0 to {most}"
        if is_wrong or (target.kind != "multiclass" and value.shape != (target.n_outputs,)):
            yield Problem(sample.name, f"label: expected {expected}, found {value.tolist()}.", _LEAVE_OUT, sample.name)


def absent_from(
    splits: Mapping[str, Sequence[Sample]], target: Target, problems: Sequence[Problem]
) -> Iterator[Problem]:
    """Yield classes and labels that do not occur in a split, samples with problems not counted."""
    bad = {problem.sample for problem in problems}
    yield from absent_classes(
        {
            split: label_array([sample.label for sample in samples if sample.name not in bad], target)
            for split, samples in splits.items()
        },
        target,
    )


def complete(
    splits: Mapping[str, Sequence[Sample]], target: Target, settings: ArraysSettings | PythonSettings
) -> tuple[dict[str, Sequence[Sample]], str]:
    """Return all three splits, those that are missing made of training samples, and a text that says so.

    Raises:
        DataError: There is no training split, or it has too few samples.
    """
    if not splits.get("train"):
        raise DataError("train: expected a training split with samples, found none. Add it.")
    made, said = dict(splits), ""
    for split, fraction in (("test", settings.test_fraction), ("validation", settings.validation_fraction)):
        if made.get(split):
            continue
        samples = made["train"]
        if len(samples) < 2:
            raise DataError(f"{split}: there is none, and too few training samples to make one. Add samples.")
        stay, held = hold_out(
            label_array([sample.label for sample in samples], target), target, fraction, settings.seed
        )
        made["train"], made[split] = [samples[row] for row in stay], [samples[row] for row in held]
        said += (
            f" No {split} split was given: {len(held)} training samples ({fraction:.0%}, stratified, seed "
            f"{settings.seed}) are it."
        )
    return {split: made[split] for split in SPLIT_NAMES}, said

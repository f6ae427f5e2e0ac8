"""Samples of NTU RGB+D: the pairs of a skeleton file and a video of the same name below a folder."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import stand_in
from mfas_optuna.datasets.ntu import names, skeleton, video
from mfas_optuna.datasets.ntu.missing import FILE, missing_skeletons
from mfas_optuna.datasets.samples import Modality, Problem, Sample, Source
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import NtuSettings
from mfas_optuna.target import Target

_KINDS = {names.SKELETON_ENDING: "skeleton", ".avi": "video"}
_OF_ANOTHER_MODALITY = "_ir.avi"
_Pair = tuple[names.Name, tuple[str, str]]
"""A sample's name, its skeleton file and its video."""

_SPLITS: tuple[names.Split, ...] = ("train", "validation", "test")

_LAYOUT = (
    "Put the files of NTU RGB+D into one folder, nturgb+d_skeletons/SsssCcccPpppRrrrAaaa.skeleton and "
    "nturgb+d_rgb/SsssCcccPpppRrrrAaaa_rgb.avi (folders in it may have any names), and name it with --data-root or "
    "MFAS_DATA. The data set's page says how to get them. mfas-optuna data make ntu makes small files of the same "
    "kind; the study digits needs no files."
)

_CARD = """\
ntu: NTU RGB+D, actions recorded as RGB video and as Kinect skeletons; protocol {protocol}.
video: {n_frames} frames, the middles of equal parts of the video, the shorter side scaled to {frame_size} pixels, the
  middle of the longer one kept. uint8 [3, {n_frames}, {frame_size}, {frame_size}].
pose: the two bodies with the largest spread (the second zero where there is one), positions in metres relative to the
  spine's middle of the first body at the start, interpolated to {n_skeleton_frames} evenly spaced times. float32
  [3, {n_skeleton_frames}, 25, 2].
left out: {n_missing} samples with missing or incomplete skeletons, as listed by the data set's authors{also};
  {n_unused} samples that the protocol does not use.
"""


def find(settings: NtuSettings, data_root: Path | None) -> Source:
    """Find the samples below a folder, in the order of their names.

    Classes are the actions that occur in the protocol's samples: "A001" and so on; a label is an action's rank.

    Args:
        settings: Which data, and how they are made.
        data_root: The folder; its subfolders may have any names.

    Raises:
        DataError: A folder, the list of missing skeletons or the mark of generated data in it cannot be read.
        DataNotFoundError: There is no folder, or there are no such files below it.
    """
    if data_root is None:
        raise DataNotFoundError(f"ntu: no folder of data was named. {_LAYOUT}")
    if not data_root.is_dir():
        raise DataNotFoundError(f"{data_root}: expected a folder, found none. {_LAYOUT}")
    files = sorted(_files(data_root))
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {kind: [] for kind in _KINDS.values()})
    for file in files:
        if file.name != FILE:
            found[names.sample_of(file.name)][_KINDS[file.suffix]].append(file)
    if not found:
        raise DataNotFoundError(f"{data_root}: neither .skeleton nor _rgb.avi files below it. {_LAYOUT}")

    missing = missing_skeletons(data_root)
    problems: list[Problem] = []
    splits: dict[names.Split, list[_Pair]] = {split: [] for split in _SPLITS}
    n_missing = n_unused = 0
    others: list[str] = []
    for text, kinds in sorted(found.items()):
        name = names.parse(text)
        split = None if name is None else names.split_of(name, settings.protocol)
        if name is None:
            problems += _misnamed(text, kinds)
        elif text in missing:
            n_missing += 1
        elif split is None:
            n_unused += 1
        else:
            if not name.is_of_ntu_60:
                others.append(text)
            wrong = list(_unpaired(data_root, text, kinds))
            problems += wrong
            if not wrong:
                splits[split].append((name, (str(kinds["skeleton"][0]), str(kinds["video"][0]))))
    if others:
        problems.append(
            Problem(
                str(data_root),
                f"{len(others)} samples have setups, subjects or actions that NTU RGB+D has not: {others[0]} first.",
                "They look like NTU RGB+D 120, another data set: remove them to compare with the paper.",
                is_error=False,
            )
        )
    actions = sorted({name.action for pairs in splits.values() for name, _ in pairs})
    problems += _absent(data_root, settings.protocol, splits, actions)
    rank = {action: label for label, action in enumerate(actions)}
    shape = (settings.n_frames, settings.frame_size, settings.frame_size)
    return Source(
        splits={
            split: [Sample(str(name), rank[name.action], at) for name, at in pairs] for split, pairs in splits.items()
        },
        target=Target("multiclass", tuple(f"A{action:03}" for action in actions)),
        modalities={
            "video": Modality((3, *shape), "uint8", "video"),
            "pose": Modality(
                (3, settings.n_skeleton_frames, skeleton.N_JOINTS, skeleton.N_BODIES), "float32", "skeleton"
            ),
        },
        read=functools.partial(
            _read,
            n_frames=settings.n_frames,
            frame_size=settings.frame_size,
            n_skeleton_frames=settings.n_skeleton_frames,
        ),
        facts={"files": len(files), "sha256": _digest(files)},
        card=_CARD.format(
            **settings.model_dump(),
            n_missing=n_missing,
            also=f" and in {FILE}" if (data_root / FILE).is_file() else "",
            n_unused=n_unused,
        ),
        problems=problems,
        stand_in=stand_in.read_mark(data_root),
    )


def _read(
    sample: Sample, *, n_frames: int, frame_size: int, n_skeleton_frames: int
) -> Mapping[str, npt.NDArray[np.generic]]:
    skeleton_file, video_file = map(Path, sample.at)
    return {
        "video": video.read_frames(video_file, n_frames, frame_size),
        "pose": skeleton.to_sample(skeleton.read(skeleton_file), n_skeleton_frames),
    }


def _files(data_root: Path) -> Iterator[Path]:
    """Return skeleton files, videos and the list of missing skeletons, following links to folders, each folder once.

    Hidden files are none of the data set's: some systems put one beside each file.
    """
    seen: set[str] = set()
    for folder, subfolders, file_names in os.walk(data_root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for file_name in file_names:
            if file_name.startswith(".") or file_name.endswith(_OF_ANOTHER_MODALITY):
                continue
            file = Path(folder, file_name)
            if (file.suffix in _KINDS or file == data_root / FILE) and file.is_file():
                yield file


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        f"{error.filename}: cannot be read: {error.strerror or error}. Make the folder readable."
    ) from error


def _misnamed(text: str, kinds: Mapping[str, Sequence[Path]]) -> Iterator[Problem]:
    for file in (file for files in kinds.values() for file in files):
        yield Problem(
            str(file),
            "expected a name like S001C002P003R002A013.skeleton or S001C002P003R002A013_rgb.avi.",
            "Rename the file, or move it out of the folder.",
            sample=text,
        )


def _unpaired(data_root: Path, text: str, kinds: Mapping[str, Sequence[Path]]) -> Iterator[Problem]:
    for kind, files in kinds.items():
        if len(files) == 1:
            continue
        if files:
            rule, remedy = f"{len(files)} {kind} files: {', '.join(map(str, files))}.", "Keep one of them."
        else:
            wanted = text + (names.SKELETON_ENDING if kind == "skeleton" else names.VIDEO_ENDING)
            rule, remedy = f"no {kind} file: {wanted} is nowhere below it.", "Add it, or leave the sample out."
        yield Problem(f"{data_root}, {text}", rule, remedy, sample=text)


def _absent(
    data_root: Path,
    protocol: str,
    splits: Mapping[names.Split, Sequence[_Pair]],
    actions: Sequence[int],
) -> Iterator[Problem]:
    """Say which splits are empty, and which have no sample of some action."""
    for split, pairs in splits.items():
        where = f"{data_root}, {split}"
        if not pairs:
            rule = f"the protocol {protocol} has no sample in this split."
            yield Problem(where, rule, "Add samples of its subjects and cameras, or choose another protocol.")
            continue
        absent = [f"A{action:03}" for action in actions if action not in {name.action for name, _ in pairs}]
        if absent:
            rule = f"no sample of {', '.join(absent)}, of which other splits have some."
            remedy = "Add some, or remove the action from the other splits."
            yield Problem(where, rule, remedy, is_error=split == "train")


def _digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' names, sizes and times."""
    digest = hashlib.sha256()
    states = ((file.name, file.stat()) for file in files)
    for name, size, time in sorted((name, state.st_size, state.st_mtime_ns) for name, state in states):
        digest.update(f"{name} {size} {time}\n".encode())
    return digest.hexdigest()

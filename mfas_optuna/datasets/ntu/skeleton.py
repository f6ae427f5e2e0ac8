"""Skeleton files of NTU RGB+D: text with the joints of every body in every frame.

    number of frames
    for each frame:     number of bodies, which may be 0
      for each body:    body ID (64 bits) and nine other values
                        number of joints, 25
        for each joint: x y z, depth x y, colour x y, orientation w x y z, tracking state

x, y and z are metres in the camera's frame; the depth and colour positions are pixels.
"""

# Shapes: n frames of a body, V joints (25), P values of a joint (12), T frames of a sample, M bodies of a sample (2).

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.ntu import names
from mfas_optuna.datasets.samples import Problem, SampleError

N_JOINTS = 25
N_BODIES = 2
SPINE_MIDDLE = 1
"""Index of the joint that positions are relative to."""

_N_BODY_VALUES = 10
_N_JOINT_VALUES = 12
_FARTHEST_M = 1000.0
"""Positions beyond are no measurements: the sensor sees about 8 m."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """One tracked body.

    Attributes:
        body_id: Its 64-bit ID.
        frames: int64 (n,), the frames in which it is present, from 0, ascending.
        details: float64 (n, 9), the values of its line after the ID: clipped edges, confidence and state of the left
            and the right hand, restricted, lean x and y, tracking state.
        joints: float64 (n, 25, 12), the values of its joints as they are in the file.
    """

    body_id: int
    frames: npt.NDArray[np.int64]
    details: npt.NDArray[np.float64]
    joints: npt.NDArray[np.float64]

    @property
    def spread(self) -> float:
        """How much room it takes: standard deviation of x plus that of y, over all its joints and frames, metres."""
        return float(self.joints[:, :, 0].std() + self.joints[:, :, 1].std())


@dataclass(frozen=True, slots=True, eq=False)
class Skeletons:
    """What a skeleton file holds.

    Attributes:
        n_frames: Frames of the recording, with or without bodies.
        bodies: In the order in which they appear.
    """

    n_frames: int
    bodies: tuple[Body, ...]


def read(file: Path) -> Skeletons:
    """Return what a skeleton file holds.

    Raises:
        SampleError: It cannot be read, is malformed, cut off or goes on after its end, has a position that is not a
            finite number of metres, no frame or no body at all.
    """
    try:
        # Not splitlines, which ends lines at other characters than line ends too.
        lines = file.read_bytes().decode("ascii").rstrip().split("\n")
    except OSError as error:
        raise _error(file, 0, f"cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise _error(
            file, 0, f"expected text, found byte {error.object[error.start]:#04x} at {error.start}."
        ) from error
    return _Reader(file, lines).read()


def to_sample(skeletons: Skeletons, n_frames: int) -> npt.NDArray[np.float32]:
    """Return the positions of the two bodies with the largest spread at evenly spaced times.

    The first is the one with the larger spread (`Body.spread`; of equal ones, that which appears first). Times go from
    the first frame to the last. Between frames, and over gaps in which a body is absent, positions are interpolated
    linearly; before its first frame and after its last, a body stays as it is there. Positions are relative to the
    spine's middle of the first body at the first time. A second body that is not there is all zero.

    Source: docs/decisions/0022-ntu-files.md.

    Args:
        skeletons: What `read` returned.
        n_frames: T, times of the sample.

    Returns:
        float32 (3, T, 25, 2): x, y and z in metres, times, joints, bodies.
    """
    times = np.linspace(0, skeletons.n_frames - 1, n_frames)
    kept = sorted(skeletons.bodies, key=lambda body: body.spread, reverse=True)[:N_BODIES]
    positions_MTVC = np.stack([_positions_at(times, body) for body in kept])
    positions_MTVC -= positions_MTVC[0, 0, SPINE_MIDDLE].copy()
    sample = np.zeros((3, n_frames, N_JOINTS, N_BODIES), np.float32)
    sample[..., : len(kept)] = positions_MTVC.transpose(3, 1, 2, 0)
    return sample


def _positions_at(times: npt.NDArray[np.float64], body: Body) -> npt.NDArray[np.float64]:
    """Return positions (T, 25, 3) of a body."""
    known = body.joints[:, :, :3]
    after = np.searchsorted(body.frames, times, side="right").clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    span = np.maximum(body.frames[after] - body.frames[before], 1)
    weight = ((times - body.frames[before]) / span).clip(0, 1)[:, None, None]
    positions: npt.NDArray[np.float64] = (1 - weight) * known[before] + weight * known[after]
    return positions


def _error(file: Path, line: int, rule: str) -> SampleError:
    where = f"{file}, line {line}" if line else str(file)
    remedy = "Unpack or fetch the file again, or leave the sample out."
    return SampleError(Problem(where, rule, remedy, sample=names.sample_of(file.name)))


class _Reader:
    """Goes through the lines of a file once."""

    def __init__(self, file: Path, lines: Sequence[str]) -> None:
        self._file = file
        self._lines = lines
        self._line = 0
        """Lines taken so far: the number of the last one."""

    def read(self) -> Skeletons:
        n_frames = self._count("the number of frames")
        if n_frames == 0:
            self._wrong("expected at least one frame, found 0.")
        frames: dict[int, list[int]] = {}
        details: dict[int, list[list[float]]] = {}
        joints: dict[int, list[npt.NDArray[np.float64]]] = {}
        for frame in range(n_frames):
            for _ in range(self._count(f"the number of bodies in frame {frame + 1} of {n_frames}")):
                body_id, values = self._body()
                if frames.setdefault(body_id, [-1])[-1] == frame:
                    self._wrong(f"body {body_id} is a second time in frame {frame + 1}.")
                frames[body_id].append(frame)
                details.setdefault(body_id, []).append(values)
                joints.setdefault(body_id, []).append(self._joints())
        if self._line < len(self._lines):
            text = self._take("the end")
            self._wrong(f"expected the end after {n_frames} frames, found {_shown(text)}.")
        if not frames:
            raise _error(self._file, 0, f"there is no body in any of its {n_frames} frames.")
        return Skeletons(
            n_frames,
            tuple(
                Body(body_id, np.array(present[1:]), np.array(details[body_id]), np.stack(joints[body_id]))
                for body_id, present in frames.items()
            ),
        )

    def _take(self, expected: str) -> str:
        if self._line >= len(self._lines):
            self._wrong(f"the file ends here, expected {expected} next.")
        self._line += 1
        return self._lines[self._line - 1]

    def _count(self, expected: str) -> int:
        text = self._take(expected)
        try:
            count = int(text)
        except ValueError:
            count = -1
        if count < 0:
            self._wrong(f"expected {expected}, found {_shown(text)}.")
        return count

    def _body(self) -> tuple[int, list[float]]:
        expected = f"a body ID of 64 bits and {_N_BODY_VALUES - 1} numbers"
        text = self._take(expected)
        words = text.split()
        try:
            body_id, values = int(words[0]), [float(word) for word in words[1:]]
        except (IndexError, ValueError):
            body_id, values = -1, []
        if len(values) != _N_BODY_VALUES - 1 or not 0 <= body_id < 2**64:
            self._wrong(f"expected {expected}, found {_shown(text)}.")
        return body_id, values

    def _joints(self) -> npt.NDArray[np.float64]:
        n_joints = self._count("the number of joints")
        if n_joints != N_JOINTS:
            self._wrong(f"expected {N_JOINTS} joints, found {n_joints}.")
        rows = [line.split() for line in self._lines[self._line : self._line + N_JOINTS]]
        try:
            values = list(map(float, chain.from_iterable(rows)))
        except ValueError:
            values = []
        if len(values) != N_JOINTS * _N_JOINT_VALUES or {len(row) for row in rows} != {_N_JOINT_VALUES}:
            self._wrong_joint()
        self._line += N_JOINTS
        joints = np.array(values).reshape(N_JOINTS, _N_JOINT_VALUES)
        far = ~(np.abs(joints[:, :3]) <= _FARTHEST_M).all(axis=1)
        if far.any():
            joint = int(np.argmax(far))
            self._line -= N_JOINTS - 1 - joint
            found = ", ".join(f"{value:g}" for value in joints[joint, :3])
            self._wrong(f"expected the position of joint {joint + 1} in metres, found {found}.")
        return joints

    def _wrong_joint(self) -> NoReturn:
        for joint in range(1, N_JOINTS + 1):
            text = self._take(f"joint {joint} of {N_JOINTS}")
            try:
                n_values = len([float(word) for word in text.split()])
            except ValueError:
                n_values = 0
            if n_values != _N_JOINT_VALUES:
                self._wrong(f"expected {_N_JOINT_VALUES} numbers for joint {joint}, found {_shown(text)}.")
        raise AssertionError("every joint is as expected")

    def _wrong(self, rule: str) -> NoReturn:
        raise _error(self._file, self._line, rule)


def _shown(text: str) -> str:
    return repr(text.strip() if len(text) < 60 else text[:57].strip() + "...")

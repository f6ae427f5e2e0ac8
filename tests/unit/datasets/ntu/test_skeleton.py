"""Skeleton files: every number of one written by hand, every fault, and samples by a slow plain twin."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets.ntu import skeleton
from mfas_optuna.datasets.samples import SampleError

FIRST_ID = 72057594037931101
"""Odd and above 2^53: float64 would round it."""
SECOND_ID = 2**64 - 1
NAME = "S001C002P003R002A013"


def value(body: int, frame: int, joint: int, column: int) -> float:
    """Return a number of a joint that no other place has."""
    if column == 11:
        return float(joint % 3)
    return (1000 * body + 100 * frame + joint + column / 16) / 64 - (4 if column == 1 else 0)


def body_lines(body_id: int, body: int, frame: int) -> list[str]:
    details = f"{body_id} {frame} 1 2 0 1 0 0.25 -0.{body}5 2"
    joints = [" ".join(f"{value(body, frame, joint, column)!r}" for column in range(12)) for joint in range(25)]
    return [details, "25", *joints]


def hand_made() -> list[str]:
    """Four frames: one body, nobody, two bodies, the second alone."""
    return [
        "4",
        *("1", *body_lines(FIRST_ID, 1, 0)),
        "0",
        *("2", *body_lines(FIRST_ID, 1, 2), *body_lines(SECOND_ID, 2, 2)),
        *("1", *body_lines(SECOND_ID, 2, 3)),
    ]


def write(folder: Path, lines: list[str], end: str = "\r\n") -> Path:
    file = folder / f"{NAME}.skeleton"
    file.write_bytes((end.join(lines) + end).encode())
    return file


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_every_number(tmp_path: Path, end: str) -> None:
    read = skeleton.read(write(tmp_path, hand_made(), end))
    assert read.n_frames == 4
    assert [body.body_id for body in read.bodies] == [FIRST_ID, SECOND_ID]
    for number, (body, frames) in enumerate(zip(read.bodies, ([0, 2], [2, 3]), strict=True), start=1):
        assert body.frames.tolist() == frames
        assert body.details.tolist() == [[frame, 1, 2, 0, 1, 0, 0.25, float(f"-0.{number}5"), 2] for frame in frames]
        assert body.joints.shape == (2, 25, 12)
        assert body.joints.dtype == np.float64
        for row, frame in enumerate(frames):
            for joint in range(25):
                for column in range(12):
                    assert body.joints[row, joint, column] == value(number, frame, joint, column)


def test_projections_need_not_be_finite(tmp_path: Path) -> None:
    lines = hand_made()
    lines[4] = "0.5 0.25 2 -Infinity NaN inf 3 1 0 0 0 2"
    joints = skeleton.read(write(tmp_path, lines)).bodies[0].joints
    assert joints[0, 0, :3].tolist() == [0.5, 0.25, 2]
    assert math.isnan(joints[0, 0, 4])


def replaced(number: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[: number - 1], text, *lines[number:]]


JOINT = "1 2 3 4 5 6 7 8 9 10 11 2"
FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "empty": (lambda _: [""], r"line 1: expected the number of frames, found ''"),
    "prose": (lambda _: ["hello world"], r"line 1: expected the number of frames, found 'hello world'"),
    "no frames": (lambda _: ["0"], r"line 1: expected at least one frame, found 0"),
    "no body": (lambda _: ["2", "0", "0"], r"\.skeleton: there is no body in any of its 2 frames"),
    "negative count": (replaced(2, "-1"), r"line 2: expected the number of bodies in frame 1 of 4, found '-1'"),
    "details short": (
        replaced(3, "72057594037931101 0 1"),
        r"line 3: expected a body ID .* found '72057594037931101 0 1'",
    ),
    "ID not whole": (replaced(3, "7.2e16 0 1 1 1 1 0 0 0 2"), r"line 3: expected a body ID of 64 bits"),
    "ID too large": (replaced(3, f"{2**64} 0 1 1 1 1 0 0 0 2"), r"line 3: expected a body ID of 64 bits"),
    "details blank": (replaced(3, ""), r"line 3: expected a body ID of 64 bits and 9 numbers, found ''"),
    "joint count": (replaced(4, "24"), r"line 4: expected 25 joints, found 24"),
    "joint short": (replaced(7, "1 2 3"), r"line 7: expected 12 numbers for joint 3, found '1 2 3'"),
    "joint no number": (
        replaced(7, JOINT.replace("5", "x")),
        r"line 7: expected 12 numbers for joint 3, found '1 2 3 4 x",
    ),
    "value moved": (
        lambda lines: replaced(8, JOINT + " 1")(replaced(7, JOINT[:-2])(lines)),
        r"line 7: expected 12 numbers for joint 3",
    ),
    "NaN": (
        replaced(7, JOINT.replace("2 3", "nan 3")),
        r"line 7: expected the position of joint 3 in metres, found 1, nan",
    ),
    "infinite": (
        replaced(29, JOINT.replace("1 ", "-inf ", 1)),
        r"line 29: expected the position of joint 25 .* -inf, 2, 3",
    ),
    "far away": (replaced(5, "1e30" + JOINT[1:]), r"line 5: expected the position of joint 1 in metres, found 1e\+30"),
    "twice in a frame": (
        lambda lines: replaced(59, lines[31])(lines),
        r"line 59: body 72057594037931101 is a second time in frame 3",
    ),
    "goes on": (lambda lines: [*lines, "1"], r"line 114: expected the end after 4 frames, found '1'"),
    "cut before a frame": (
        lambda lines: lines[:29],
        r"line 29: .* ends here, expected the number of bodies in frame 2 of 4",
    ),
    "cut before a body": (lambda lines: lines[:31], r"line 31: .* expected a body ID"),
    "cut before the joints": (lambda lines: lines[:3], r"line 3: .* expected the number of joints next"),
    "cut between joints": (lambda lines: lines[:20], r"line 20: .* ends here, expected joint 17 of 25 next"),
    "cut within a line": (
        lambda lines: [*lines[:20], "0.5 0.2"],
        r"line 21: expected 12 numbers for joint 17, found '0.5 0.2'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    file = write(tmp_path, change(hand_made()))
    with pytest.raises(SampleError, match=message) as caught:
        skeleton.read(file)
    problem = caught.value.problem
    assert problem.where.startswith(str(file))
    assert problem.sample == NAME
    assert problem.is_error
    assert "Unpack or fetch the file again" in str(caught.value)


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.skeleton"
    with pytest.raises(SampleError, match="cannot be read: No such file"):
        skeleton.read(file)
    file.write_bytes(b"12\n\xff\x00")
    with pytest.raises(SampleError, match="expected text, found byte 0xff at 3"):
        skeleton.read(file)


def body(body_id: int, frames: list[int], size: float, seed: int) -> skeleton.Body:
    joints = np.random.default_rng(seed).normal(0, size, (len(frames), 25, 12))
    joints[..., 2] += 3  # Depth does not count as spread.
    return skeleton.Body(body_id, np.array(frames), np.zeros((len(frames), 9)), joints)


def plain_sample(skeletons: skeleton.Skeletons, n_frames: int) -> np.ndarray:
    """Return what `to_sample` should, one number at a time."""

    def spread(one: skeleton.Body) -> float:
        n = len(one.frames)
        return sum(
            statistics.pstdev(one.joints[row, joint, axis] for row in range(n) for joint in range(25))
            for axis in (0, 1)
        )

    def at(one: skeleton.Body, time: float, joint: int, axis: int) -> float:
        known = {int(frame): float(one.joints[row, joint, axis]) for row, frame in enumerate(one.frames)}
        earlier, later = [f for f in known if f <= time], [f for f in known if f >= time]
        if not earlier or not later:
            return known[min(known) if not earlier else max(known)]
        before, after = max(earlier), min(later)
        if before == after:
            return known[before]
        return known[before] + (known[after] - known[before]) * (time - before) / (after - before)

    kept = sorted(skeletons.bodies, key=spread)[::-1][:2]
    sample = np.zeros((3, n_frames, 25, 2))
    for axis in range(3):
        origin = at(kept[0], 0.0, 1, axis)
        for step in range(n_frames):
            moment = (skeletons.n_frames - 1) * step / (n_frames - 1)
            for joint in range(25):
                for number, one in enumerate(kept):
                    sample[axis, step, joint, number] = at(one, moment, joint, axis) - origin
    return sample


@pytest.mark.parametrize(
    ("bodies", "n_frames"),
    [
        ([body(1, list(range(9)), 0.3, 1)], 9),
        ([body(1, [0, 1, 5, 6], 0.3, 1)], 32),
        ([body(1, [4], 0.3, 1)], 5),
        ([body(1, [2, 3, 8], 0.2, 1), body(2, [0, 1, 2, 3], 0.4, 2)], 17),
        ([body(1, [0, 8], 0.2, 1), body(2, [3, 5, 7], 0.1, 2), body(3, [1, 2], 0.3, 3)], 4),
    ],
    ids=["one", "gap", "one frame", "second is larger", "three"],
)
def test_samples_equal_those_of_the_plain_way(bodies: list[skeleton.Body], n_frames: int) -> None:
    skeletons = skeleton.Skeletons(9, tuple(bodies))
    sample = skeleton.to_sample(skeletons, n_frames)
    assert sample.shape == (3, n_frames, 25, 2)
    assert sample.dtype == np.float32
    np.testing.assert_allclose(sample, plain_sample(skeletons, n_frames), atol=1e-6)
    assert (sample[:, 0, skeleton.SPINE_MIDDLE, 0] == 0).all()
    assert (sample[..., 1] == 0).all() == (len(bodies) == 1)


def test_the_place_in_the_room_does_not_matter() -> None:
    here = skeleton.Skeletons(4, (body(1, [0, 1, 3], 0.3, 1), body(2, [1, 2], 0.2, 2)))
    there = skeleton.Skeletons(
        4,
        tuple(
            skeleton.Body(one.body_id, one.frames, one.details, one.joints + ([0.5, -0.25, 1] + [0] * 9))
            for one in here.bodies
        ),
    )
    np.testing.assert_allclose(skeleton.to_sample(here, 8), skeleton.to_sample(there, 8), atol=1e-6)


def test_of_equal_spread_the_first_comes_first() -> None:
    one = body(1, [0, 1], 0.3, 1)
    moved = skeleton.Body(2, one.frames, one.details, one.joints + ([0, 0, 5] + [0] * 9))
    sample = skeleton.to_sample(skeleton.Skeletons(2, (moved, one)), 2)
    np.testing.assert_allclose(sample[2, :, :, 1] - sample[2, :, :, 0], -5, atol=1e-6)


def test_a_recording_of_one_frame() -> None:
    sample = skeleton.to_sample(skeleton.Skeletons(1, (body(1, [0], 0.3, 1),)), 3)
    assert (sample == sample[:, :1]).all()


def test_reading_is_fast(tmp_path: Path) -> None:
    lines = ["100", *(line for _ in range(100) for line in ("1", *body_lines(FIRST_ID, 1, 0)))]
    file = write(tmp_path, lines)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        skeleton.read(file)
        seconds.append(time.perf_counter() - start)
    # Measured 10 ms on one core; the bound is for machines that are busy.
    assert min(seconds) < 0.1

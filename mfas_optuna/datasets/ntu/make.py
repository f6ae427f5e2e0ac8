"""Small generated files in the formats of NTU RGB+D, in which both modalities are needed for good scores.

A class is told by four cues, each of which is wrong now and then, so that no network reaches 100 %:

| where | cue | of class c | level |
|---|---|---|---|
| skeleton | which limb moves, and how fast | c // 2 | motion |
| skeleton | feet apart or together | c mod 2 | posture |
| video | colour and stripes of a moving patch | c mod 3 | texture |
| video | the direction in which the patch moves and is longer | c // 3 | shape and motion |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import stand_in
from mfas_optuna.datasets.ntu import names
from mfas_optuna.datasets.ntu.missing import missing_skeletons
from mfas_optuna.datasets.ntu.video import import_av
from mfas_optuna.errors import DataError
from mfas_optuna.progress import Progress, silent

MAX_CLASSES = 60
_TURN = 5
"""Of five samples of a class three train, one validates, one tests."""
MOST_OF_A_CLASS = 1000

_STRONG, _WEAK = 0.9, 0.5
"""Probabilities that the cues of motion and texture, and that those of posture and shape, are those of the class."""

_RATE, _WIDTH, _HEIGHT = 30, 160, 120
_BIT_RATE = 600_000
_FEWEST_FRAMES, _MOST_FRAMES = 30, 48

_FIRST_BODY_ID = 72057594037927936
"""2^56: the sensor's body IDs are of this size, which float64 does not hold."""

# x, y, z of the 25 joints of a person of 1.7 m, metres from the spine's base; the camera looks along z.
_STANDING = np.array(
    [
        [0.00, 0.00, 0.00], [0.00, 0.30, 0.00], [0.00, 0.58, -0.02], [0.00, 0.72, -0.03],
        [-0.18, 0.48, 0.00], [-0.24, 0.22, 0.02], [-0.26, -0.02, -0.02], [-0.26, -0.10, -0.04],
        [0.18, 0.48, 0.00], [0.24, 0.22, 0.02], [0.26, -0.02, -0.02], [0.26, -0.10, -0.04],
        [-0.09, -0.04, 0.00], [-0.11, -0.44, 0.00], [-0.12, -0.84, 0.02], [-0.13, -0.88, -0.10],
        [0.09, -0.04, 0.00], [0.11, -0.44, 0.00], [0.12, -0.84, 0.02], [0.13, -0.88, -0.10],
        [0.00, 0.50, -0.01], [-0.26, -0.17, -0.05], [-0.22, -0.12, -0.07], [0.26, -0.17, -0.05], [0.22, -0.12, -0.07],
    ]
)  # fmt: skip
_LIMBS: tuple[dict[int, float], ...] = (
    {9: 0.4, 10: 0.8, 11: 1.0, 23: 1.1, 24: 1.0},
    {5: 0.4, 6: 0.8, 7: 1.0, 21: 1.1, 22: 1.0},
    {17: 0.5, 18: 0.9, 19: 1.0},
)
"""Joints of the right arm, the left arm and the right leg, and how far they swing."""
_LEFT_LEG, _RIGHT_LEG = (13, 14, 15), (17, 18, 19)

_COLOURS = np.array([[210, 90, 80], [90, 190, 90], [90, 100, 210]], np.float32)
_STRIPE_PIXELS = (6, 10, 16)


@dataclass(frozen=True, slots=True)
class _Cues:
    motion: int
    posture: int
    texture: int
    direction: int
    n_directions: int


def make(folder: Path, *, n_samples: int = 200, n_classes: int = 6, seed: int = 0, progress: Progress = silent) -> None:
    """Write generated skeleton files and videos, marked as a stand-in, in the layout that `find` reads.

    Every class has samples in every split of every protocol: about 60 % train, 20 % validate and 20 % test in that of
    the search. The same arguments give the same bytes with the same versions of NumPy and PyAV.

    Args:
        folder: Where to write; made when it is not there.
        n_samples: Pairs of files.
        n_classes: Actions, from A001 on, in turn.
        seed: Of everything that is random.
        progress: Told how far the writing is.

    Raises:
        DataError: The folder is not empty or cannot be written, a number is out of range, or PyAV is missing.
    """
    if not 2 <= n_classes <= MAX_CLASSES:
        raise DataError(f"stand-in for ntu, classes: expected 2 to {MAX_CLASSES}, found {n_classes}. Mend --classes.")
    fewest, most = _TURN * n_classes, MOST_OF_A_CLASS * n_classes
    if not fewest <= n_samples <= most:
        raise DataError(
            f"stand-in for ntu, samples: expected {fewest} to {most} for {n_classes} classes, found "
            f"{n_samples}. Mend --samples."
        )
    import_av()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder}: expected an empty folder, found files in it. Name another, or empty it.")
        # First of all, so that what an interruption leaves is marked too.
        stand_in.mark(folder, "NTU RGB+D", {"samples": n_samples, "classes": n_classes, "seed": seed})
        skeletons, videos = folder / "nturgb+d_skeletons", folder / "nturgb+d_rgb"
        skeletons.mkdir()
        videos.mkdir()
        for index, name in enumerate(itertools.islice(_names(n_classes), n_samples)):
            progress("writing samples", index, n_samples)
            rng = np.random.default_rng([seed, index])
            cues = _cues(name.action - 1, n_classes, rng)
            n_frames = int(rng.integers(_FEWEST_FRAMES, _MOST_FRAMES + 1))
            text = _skeleton_text(cues, n_frames, rng)
            (skeletons / f"{name}{names.SKELETON_ENDING}").write_text(text, encoding="ascii", newline="\r\n")
            _write_video(videos / f"{name}{names.VIDEO_ENDING}", cues, n_frames, rng)
        progress("writing samples", n_samples, n_samples)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}. Name another folder.") from error


def _names(n_classes: int) -> Iterator[names.Name]:
    """Return names without end, the actions in turn; none is on the authors' list of missing skeletons."""
    actions = [_names_of(action) for action in range(1, n_classes + 1)]
    for of_action in itertools.cycle(actions):
        yield next(of_action)


def _names_of(action: int) -> Iterator[names.Name]:
    testing = [subject for subject in range(1, 41) if subject not in names.TRAINING_SUBJECTS]
    # Cameras such that five samples are enough for every split of the protocol that divides by cameras.
    turns = [
        _free(action, names.SEARCH_SUBJECTS, (1,)),
        _free(action, names.SEARCH_SUBJECTS, (2,)),
        _free(action, names.SEARCH_SUBJECTS, (3,)),
        _free(action, names.VALIDATION_SUBJECTS, (2, 3, 1)),
        _free(action, testing, (2, 1, 3)),
    ]
    for turn in itertools.cycle(turns):
        yield next(turn)


def _free(action: int, subjects: tuple[int, ...] | list[int], cameras: tuple[int, ...]) -> Iterator[names.Name]:
    missing = missing_skeletons()
    for setup, replication, camera, subject in itertools.product(range(1, 18), (1, 2), cameras, subjects):
        name = names.Name(setup, camera, subject, replication, action)
        if str(name) not in missing:
            yield name


def _cues(label: int, n_classes: int, rng: np.random.Generator) -> _Cues:
    n_directions = (n_classes + 2) // 3

    def cue(value: int, n_values: int, probability: float) -> int:
        if rng.random() < probability:
            return value
        return int(rng.integers(n_values))

    return _Cues(
        motion=cue(label // 2, (n_classes + 1) // 2, _STRONG),
        posture=cue(label % 2, 2, _WEAK),
        texture=cue(label % 3, 3, _STRONG),
        direction=cue(label // 3, n_directions, _WEAK),
        n_directions=n_directions,
    )


def _skeleton_text(cues: _Cues, n_frames: int, rng: np.random.Generator) -> str:
    actor = _body(cues, n_frames, rng)
    bodies = [(_FIRST_BODY_ID + int(rng.integers(1, 10_000)), actor)]
    if rng.random() < 0.2:  # Someone smaller who stands by, before or after the actor in the file.
        other = 0.7 * (_STANDING - _STANDING[0]) + actor[0, 0] + [rng.choice([-1.0, 1.0]), -0.2, 0.3]
        onlooker = other + rng.normal(0, 0.01, (n_frames, 25, 3))
        bodies.insert(int(rng.integers(2)), (bodies[0][0] + 1, onlooker))
    hidden = range(0)
    if rng.random() < 0.15:  # Nobody is seen for a while.
        start = int(rng.integers(n_frames - 5))
        hidden = range(start, start + 5)
    lines = [str(n_frames)]
    for frame in range(n_frames):
        lines.append("0" if frame in hidden else str(len(bodies)))
        if frame not in hidden:
            for body_id, positions in bodies:
                lines += [f"{body_id} 0 1 1 1 1 0 {rng.normal(0, 0.05):.7g} {rng.normal(0, 0.05):.7g} 2", "25"]
                lines += [_joint_line(*joint) for joint in positions[frame].tolist()]
    return "\n".join(lines) + "\n"


def _joint_line(x: float, y: float, z: float) -> str:
    depth = f"{256 + 365 * x / z:.7g} {212 - 365 * y / z:.7g}"
    colour = f"{960 + 1060 * x / z:.7g} {540 - 1060 * y / z:.7g}"
    return f"{x:.7g} {y:.7g} {z:.7g} {depth} {colour} 1 0 0 0 2"


def _body(cues: _Cues, n_frames: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the positions (n_frames, 25, 3) of a person who swings a limb."""
    pose = _STANDING.copy()
    apart = (0.2 if cues.posture else 0.0) + rng.normal(0, 0.03)
    pose[_LEFT_LEG, 0] -= apart
    pose[_RIGHT_LEG, 0] += apart
    pose = rng.uniform(0.9, 1.1) * pose
    positions = np.repeat(pose[None], n_frames, axis=0)
    cycles = 1.5 + cues.motion // len(_LIMBS) + rng.uniform(-0.2, 0.2)
    swing = np.sin(2 * np.pi * (cycles * np.linspace(0, 1, n_frames) + rng.random()))
    for joint, reach in _LIMBS[cues.motion % len(_LIMBS)].items():
        size = reach * rng.uniform(0.2, 0.35)
        positions[:, joint, 1] += size * (1 + swing)
        positions[:, joint, 2] -= size * (1 + swing) / 2
    for limb in _LIMBS:  # Everything moves a little.
        idle = rng.normal(0, 0.03) * np.sin(
            2 * np.pi * (rng.uniform(0.5, 3) * np.linspace(0, 1, n_frames) + rng.random())
        )
        for joint, reach in limb.items():
            positions[:, joint, 1] += reach * idle
    turn = rng.normal(0, 0.2)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    place = [rng.uniform(-0.8, 0.8), rng.uniform(-0.3, 0.1), rng.uniform(2.5, 4.0)]
    placed: npt.NDArray[np.float64] = positions @ rotation.T + place + rng.normal(0, 0.015, positions.shape)
    return placed


def _write_video(file: Path, cues: _Cues, n_frames: int, rng: np.random.Generator) -> None:
    av = import_av()
    with av.open(str(file), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.bit_rate = _BIT_RATE
        for pixels in _frames(cues, n_frames, rng):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _frames(cues: _Cues, n_frames: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
    """Return frames (120, 160, 3) of a striped ellipse that goes to and fro along its longer axis, in noise."""
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    background = rng.uniform(90, 150) + rng.normal(0, 8, 3)
    colour = _COLOURS[cues.texture] + rng.normal(0, 25, 3)
    angle = np.pi * cues.direction / cues.n_directions + rng.normal(0, 0.15)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    cycles, phase = rng.uniform(1.0, 2.0), rng.random()
    middle_x, middle_y = _WIDTH / 2 + rng.normal(0, 6), _HEIGHT / 2 + rng.normal(0, 6)
    for frame in range(n_frames):
        way = 28 * float(np.sin(2 * np.pi * (cycles * frame / n_frames + phase)))
        x, y = columns - (middle_x + cosine * way), rows - (middle_y + sine * way)
        along, across = cosine * x + sine * y, cosine * y - sine * x
        inside = (along / 30) ** 2 + (across / 15) ** 2 < 1
        stripes = 0.75 + 0.25 * np.sign(np.sin(2 * np.pi / _STRIPE_PIXELS[cues.texture] * along[inside]))
        pixels = rng.integers(-40, 41, (_HEIGHT, _WIDTH, 3), dtype=np.int16) + background.astype(np.int16)
        pixels[inside] += (colour * stripes[:, None] - background).astype(np.int16)
        yield pixels.clip(0, 255).astype(np.uint8)

"""Frames of a video: evenly spaced, scaled, cut to a square."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.ntu import names
from mfas_optuna.datasets.samples import Problem, SampleError
from mfas_optuna.errors import DataError

_RIFF_HEADER_BYTES = 8
_LENGTHS_UNKNOWN = (0, 2**32 - 1)


def read_frames(file: Path, n_frames: int, size: int) -> npt.NDArray[np.uint8]:
    """Return evenly spaced frames of a video.

    The video is divided into `n_frames` equal parts, of each of which the frame in the middle is taken; a shorter video
    gives frames twice. The shorter side is scaled to `size`, the middle of the longer one is kept. All of the video is
    decoded, in one thread: what the container says of the number of frames is only believed once they are counted.

    Args:
        file: The video.
        n_frames: T, frames to return.
        size: S, side of the square frames, pixels.

    Returns:
        uint8 (3, T, S, S), red, green and blue.

    Raises:
        DataError: PyAV is missing.
        SampleError: The file cannot be read, is cut off or damaged, or has no video or no frames.
    """
    av = import_av()
    _check_length(file)
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise _error(file, "has no video stream.")
            n_expected = container.streams.video[0].frames
        frames, n_found = _middles(file, n_frames, size, n_expected)
        if n_found != n_expected:
            frames, n_found = _middles(file, n_frames, size, n_found)
    except av.error.FFmpegError as error:
        raise _error(file, f"cannot be decoded: {error.strerror}.") from error
    if n_found == 0:
        raise _error(file, "has no frames.")
    return np.stack(frames, axis=1)


def import_av() -> Any:
    """Return the module `av`.

    Raises:
        DataError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise DataError("Videos need PyAV. Run pip install 'mfas-optuna[ntu]'.") from error
    return av


def _middles(file: Path, n_frames: int, size: int, n_expected: int) -> tuple[list[npt.NDArray[np.uint8]], int]:
    """Return the middles (3, S, S) of the parts of a video of `n_expected` frames, and how many it really has."""
    wanted = [(2 * part + 1) * n_expected // (2 * n_frames) for part in range(n_frames)]
    taken: list[npt.NDArray[np.uint8]] = []
    n_found = 0
    for frame in _decode(file):
        n_times = wanted.count(n_found)
        if n_times:
            taken += [_square(frame, size)] * n_times
        n_found += 1
    return taken, n_found


def _decode(file: Path) -> Iterator[Any]:
    with import_av().open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream), start=1):
            if frame.is_corrupt:
                raise _error(file, f"is damaged: frame {number} could not be decoded whole.")
            yield frame


def _square(frame: Any, size: int) -> npt.NDArray[np.uint8]:
    shorter = min(frame.width, frame.height)
    width, height = (max(size, round(side * size / shorter)) for side in (frame.width, frame.height))
    interpolation = "AREA" if shorter > size else "BILINEAR"
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation=interpolation, threads=1)
    pixels: npt.NDArray[np.uint8] = scaled.to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(pixels[top : top + size, left : left + size].transpose(2, 0, 1))


def _check_length(file: Path) -> None:
    """Refuse an AVI file that is shorter than its header says: decoders take what there is."""
    try:
        with file.open("rb") as stream:
            header = stream.read(_RIFF_HEADER_BYTES)
        n_bytes = file.stat().st_size
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror or error}.") from error
    length = int.from_bytes(header[4:], "little")
    if header[:4] != b"RIFF" or length in _LENGTHS_UNKNOWN:
        return
    if n_bytes < length + _RIFF_HEADER_BYTES:
        raise _error(file, f"is cut off: expected {length + _RIFF_HEADER_BYTES:,} bytes, found {n_bytes:,}.")


def _error(file: Path, rule: str) -> SampleError:
    remedy = "Unpack or fetch the file again, or leave the sample out."
    return SampleError(Problem(str(file), rule, remedy, sample=names.sample_of(file.name)))

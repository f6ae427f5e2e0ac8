"""Frames read from videos, compared with those written; every fault of a file."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mfas_optuna.datasets.ntu import video
from mfas_optuna.datasets.samples import SampleError
from mfas_optuna.errors import DataError

NAME = "S001C002P003R002A013"
HEIGHT, WIDTH = 48, 80
QUADRANTS = np.array([[180, 40, 90], [60, 180, 30], [30, 70, 180], [150, 150, 60]])
"""Colours of the quadrants of the middle square, row by row."""


def frame(number: int) -> np.ndarray:
    """Return a frame (48, 80, 3) of colours that tell its number, white left and right of the middle square."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    colours = QUADRANTS + 6 * (number % 12)
    square = np.repeat(np.repeat(colours.reshape(2, 2, 3), HEIGHT // 2, axis=0), HEIGHT // 2, axis=1)
    pixels[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2] = square
    return pixels


def write(file: Path, n_frames: int, codec: str = "mpeg4", *, noise: bool = False) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.bit_rate = WIDTH, HEIGHT, 2_000_000
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        container.start_encoding()
        for number in range(n_frames):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) if noise else frame(number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if n_frames:
            container.mux(stream.encode())
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / f"{NAME}_rgb.avi"


@pytest.mark.parametrize(
    ("n_written", "n_frames", "numbers"),
    [(12, 4, [1, 4, 7, 10]), (13, 3, [2, 6, 10]), (12, 12, range(12)), (2, 5, [0, 0, 1, 1, 1]), (1, 2, [0, 0])],
)
def test_frames_are_the_middles_of_equal_parts(file: Path, n_written: int, n_frames: int, numbers: list[int]) -> None:
    frames = video.read_frames(write(file, n_written), n_frames, 24)
    assert frames.shape == (3, n_frames, 24, 24)
    assert frames.dtype == np.uint8
    # The middles of the quadrants, where neither scaling nor the codec mixes colours.
    found = frames[:, :, 4:20:12, 4:20:12].reshape(3, n_frames, 4).transpose(1, 2, 0).astype(int)
    expected = np.array([QUADRANTS + 6 * number for number in numbers])
    assert np.abs(found - expected).max() <= 14
    # Brightness steps by 6 a frame: its mean tells frames apart.
    np.testing.assert_allclose(found.mean((1, 2)), expected.mean((1, 2)), atol=2.9)


@pytest.mark.parametrize("size", [16, 48, 64, 37])
def test_the_middle_square_is_scaled(file: Path, size: int) -> None:
    frames = video.read_frames(write(file, 3), 1, size)
    corners = frames[:, 0, size // 5 :: size - 2 * (size // 5), size // 5 :: size - 2 * (size // 5)]
    assert frames.shape == (3, 1, size, size)
    assert np.abs(corners[:, :2, :2].reshape(3, 4).T.astype(int) - QUADRANTS - 6).max() <= 16
    assert (frames[:, 0, size // 2, :: size - 1].min(axis=0) < 200).all()  # None of the white beside it.


@pytest.mark.parametrize("claimed", [0, 7, 900])
def test_what_the_container_says_of_the_number_of_frames_is_not_believed(file: Path, claimed: int) -> None:
    write(file, 12)
    right = video.read_frames(file, 4, 24)
    content = bytearray(file.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # dwTotalFrames, dwLength
        at = content.index(chunk) + offset
        assert int.from_bytes(content[at : at + 4], "little") == 12
        content[at : at + 4] = claimed.to_bytes(4, "little")
    file.write_bytes(content)
    np.testing.assert_array_equal(video.read_frames(file, 4, 24), right)


def test_motion_jpeg_is_read_too(file: Path) -> None:
    frames = video.read_frames(write(file, 5, "mjpeg"), 1, 24)
    assert np.abs(frames[:, 0, 6, 6].astype(int) - QUADRANTS[0] - 12).max() <= 12


def refused(file: Path, message: str) -> None:
    with pytest.raises(SampleError, match=message) as caught:
        video.read_frames(file, 4, 24)
    assert caught.value.problem.where == str(file)
    assert caught.value.problem.sample == NAME


def test_what_is_no_video(file: Path) -> None:
    refused(file, "cannot be read: No such file")
    file.touch()
    refused(file, "cannot be decoded: Invalid data")
    file.write_text("hello " * 1000)
    refused(file, "cannot be decoded: Invalid data")


def test_a_video_without_frames(file: Path) -> None:
    refused(write(file, 0), "has no frames")


def test_sound_alone(file: Path) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    refused(file, "has no video stream")


def test_a_video_that_is_cut_off(file: Path) -> None:
    content = write(file, 12).read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    refused(file, f"is cut off: expected {len(content):,} bytes, found {len(content) * 2 // 3:,}")


def test_a_video_that_is_damaged_in_the_middle(file: Path) -> None:
    content = bytearray(write(file, 30, noise=True).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    file.write_bytes(content)
    refused(file, r"is damaged: frame \d+ could not be decoded whole")


def test_without_the_decoder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install 'mfas-optuna\[ntu\]'"):
        video.read_frames(file, 4, 24)

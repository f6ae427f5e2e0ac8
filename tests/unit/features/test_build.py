"""From networks and data to a feature cache: interrupted anywhere, it ends with the same bytes."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.errors import DataError, HomeError
from mfas_optuna.features import build, extract
from mfas_optuna.features.build import Source, build_features
from mfas_optuna.features.cache import FeatureSet, open_features
from mfas_optuna.target import Target

CPU = torch.device("cpu")
KEY = {"dataset": "random"}
SIZES = {"train": 100, "validation": 30, "test": 33}
N_ALL = sum(SIZES.values())
CHUNK = 16


class StoppedError(Exception):
    pass


class Stopping(nn.Module):
    """Counts how often it sees each sample of each split, and raises when it has seen so many."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.seen: list[float] = []
        self.batches: list[int] = []
        self.stop_after = 10**9

    def forward(self, x: Tensor) -> Tensor:
        if len(self.seen) + len(x) > self.stop_after:
            raise StoppedError
        self.seen += x[:, 0, 0, 0].tolist()
        self.batches.append(len(x))
        result: Tensor = self.head(self.conv(x).mean(dim=(2, 3)))
        return result


def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    splits, first = {}, 0
    for name, n in SIZES.items():
        inputs = {modality: rng.random((n, 1, 6, 6), dtype=np.float32) for modality in ("audio", "image")}
        for array in inputs.values():
            array[:, 0, 0, 0] = np.arange(first, first + n)
        splits[name] = Split(inputs, rng.integers(0, 3, n))
        first += n
    return Dataset("random", "A card.", Target.of_classes(3), splits, "fingerprint")


def sources() -> dict[str, Source]:
    taps = [Tap("conv", "conv"), Tap("head", "head")]
    return {modality: Source(Stopping(seed), taps) for seed, modality in enumerate(("audio", "image"))}


def models(of: dict[str, Source]) -> list[Stopping]:
    return [source.model for source in of.values() if isinstance(source.model, Stopping)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*arguments: Any, **named: Any) -> list[int]:
        return extract.extract_rows(*arguments, rows_at_once=CHUNK, **named)

    monkeypatch.setattr(build, "extract_rows", rows)
    monkeypatch.setattr(build, "choose_batch_size", lambda *_, **__: 8)


def make(folder: Path, of: dict[str, Source], **changes: Any) -> None:
    build_features(folder, dataset(), of, **{"key": KEY, "device": CPU, "checkpoint_s": 0.0, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def opened(folder: Path) -> FeatureSet:
    return open_features(folder, KEY, rebuild_command="")


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted extraction gives."""
    folder = tmp_path_factory.mktemp("whole") / "x"
    make(folder, sources())
    return contents(folder)


def test_every_sample_once_and_nothing_left_beside(tmp_path: Path) -> None:
    of = sources()
    make(tmp_path / "x", of)
    for model in models(of):
        # The first run tells the widths.
        assert model.seen == [0.0, *range(N_ALL)]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    features = opened(tmp_path / "x")
    audio, image = features.layout.spans["audio"], features.layout.spans["image"]
    assert audio == {"conv": (0, 4), "head": (4, 7)}
    assert image == {"conv": (7, 11), "head": (11, 14)}
    inputs = dataset().splits["test"].inputs["image"]
    alone, _ = extract.extract(of["image"].model, of["image"].taps, inputs, batch_size=8, device=CPU)
    assert np.array_equal(features.matrix("test")[:, 7:], alone.astype(features.matrix("test").dtype))
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["extraction"]["batch_sizes"] == {"audio": 8, "image": 8}


@pytest.mark.parametrize("stop_after", [1, 8, 50, 101, 130, N_ALL])
@pytest.mark.parametrize("which", [0, 1])
def test_an_interrupted_extraction_goes_on_and_repeats_no_more_than_a_chunk(
    tmp_path: Path, whole: dict[str, bytes], stop_after: int, which: int
) -> None:
    interrupted, of = sources(), sources()
    models(interrupted)[which].stop_after = stop_after
    with pytest.raises(StoppedError):
        make(tmp_path / "x", interrupted)
    assert not (tmp_path / "x").exists()
    said: list[str] = []
    make(tmp_path / "x", of, say=said.append)
    assert contents(tmp_path / "x") == whole
    for before, after in zip(models(interrupted), models(of), strict=True):
        seen = before.seen[1:] + after.seen[1:]
        assert set(seen) == set(range(N_ALL))
        assert len(seen) <= N_ALL + CHUNK
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    n_before = sum(len(model.seen) for model in models(interrupted))
    if n_before > 3 * CHUNK:
        assert said[0].startswith("Features: an earlier extraction was interrupted; going on after ")
        assert said[0].endswith(f" of {2 * N_ALL} rows")


def test_the_rest_is_extracted_with_the_batch_size_that_it_was_begun_with(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted, of = sources(), sources()
    models(interrupted)[0].stop_after = 50
    with pytest.raises(StoppedError):
        make(tmp_path / "x", interrupted)
    monkeypatch.setattr(build, "choose_batch_size", lambda *_, **__: 5)
    make(tmp_path / "x", of)
    audio, image = models(of)
    assert max(audio.batches) == 8
    assert max(image.batches) == 5
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["extraction"]["batch_sizes"] == {"audio": 8, "image": 5}
    expected = np.load(io.BytesIO(whole["features-train.npy"]))
    assert np.allclose(opened(tmp_path / "x").matrix("train"), expected, atol=1e-3)


def test_an_extraction_that_ended_before_its_rows_were_written_runs_no_network_again(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_features", stop)
        with pytest.raises(StoppedError):
            make(tmp_path / "x", sources())
    of = sources()
    make(tmp_path / "x", of)
    assert contents(tmp_path / "x") == whole
    assert [model.seen for model in models(of)] == [[0.0], [0.0]]


def test_a_damaged_partial_is_begun_anew(
    tmp_path: Path, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    interrupted, of = sources(), sources()
    models(interrupted)[1].stop_after = 50
    with pytest.raises(StoppedError):
        make(tmp_path / "x", interrupted)
    file = tmp_path / ".partial-x" / "validation.audio.f32"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        make(tmp_path / "x", of)
    assert "validation.audio.f32 is damaged" in caplog.text
    assert contents(tmp_path / "x") == whole
    assert models(of)[0].seen == [0.0, *range(N_ALL)]


def test_rows_of_another_key_are_not_gone_on_from(tmp_path: Path) -> None:
    interrupted, of = sources(), sources()
    models(interrupted)[1].stop_after = 50
    with pytest.raises(StoppedError):
        make(tmp_path / "x", interrupted)
    make(tmp_path / "x", of, key={"dataset": "another"})
    assert models(of)[0].seen == [0.0, *range(N_ALL)]


def test_progress_counts_from_where_it_goes_on(tmp_path: Path) -> None:
    interrupted = sources()
    models(interrupted)[0].stop_after = 70
    with pytest.raises(StoppedError):
        make(tmp_path / "x", interrupted)
    told: list[tuple[str, int, int]] = []
    make(tmp_path / "x", sources(), progress=lambda what, done, total: told.append((what, done, total)))
    assert told[0] == ("audio features, train", 64, 100)
    assert told[-1] == ("image features, test", 33, 33)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    of = sources()
    with torch.no_grad():
        models(of)[1].conv.bias[2] = float("nan")
    with pytest.raises(DataError, match=r"image conv, channel 2"):
        make(tmp_path / "x", of)
    # Nothing is left that a second run would go on from to the same end.
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """No file may grow over a kilobyte: a write fails for real, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"cannot be written: File too large\. Free space or set MFAS_HOME"):
        make(tmp_path / "x", sources())
    assert not (tmp_path / "x").exists()
    # Two chunks of 16 rows of 7 columns fit; they count.
    journal = json.loads((tmp_path / ".partial-x" / "journal.json").read_text(encoding="utf-8"))
    assert journal["rows"] == {"train.audio.f32": 32}


PROGRAM = """
import sys
from pathlib import Path
import tests.unit.features.test_build as here
from mfas_optuna.features import build, extract
extract_rows = extract.extract_rows
build.extract_rows = lambda *arguments, **named: extract_rows(*arguments, rows_at_once=here.CHUNK, **named)
build.choose_batch_size = lambda *_, **__: 8
def progress(what, done, total):
    print(what, done, flush=True)
    if what == "image features, train" and done >= 72:
        sys.stdin.read()
here.make(Path(sys.argv[1]), here.sources(), progress=progress)
"""


def test_a_killed_process_leaves_rows_to_go_on_from(tmp_path: Path, whole: dict[str, bytes]) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "x")]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "image features, train 72":
                os.kill(process.pid, signal.SIGKILL)
                break
    of = sources()
    make(tmp_path / "x", of)
    assert contents(tmp_path / "x") == whole
    assert [len(model.seen) for model in models(of)] == [1, 1 + N_ALL - 64]

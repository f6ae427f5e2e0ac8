"""The recipe on tiny files in the true formats, and on the real ones where MFAS_DATA names them."""

from __future__ import annotations

import csv
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets import DataRequest, avmnist, load_dataset, shape_of
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import AvmnistSettings

soundfile = pytest.importorskip("soundfile", reason="needs the extra avmnist")

SETTINGS = AvmnistSettings(name="avmnist", n_train=150, n_validation=50, n_test=50)


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def make_raw(root: Path) -> Path:
    """Write small files of every kind: a tone of its own for each digit, noise in both sampling rates."""
    rng = np.random.default_rng(0)
    for folder in ("mnist", "fsdd/recordings", "esc50/audio", "esc50/meta"):
        (root / folder).mkdir(parents=True)
    for name, size in (("train", 240), ("t10k", 60)):
        write_idx(root / "mnist" / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (size, 28, 28)))
        write_idx(root / "mnist" / f"{name}-labels-idx1-ubyte.gz", np.arange(size) % 10)
    for digit in range(10):
        for index in (0, 3, 5, 9, 10, 20, 49):
            # One is longer than a spectrogram.
            time_s = np.arange(9000 if (digit, index) == (0, 10) else 3000) / 8000
            sound = 0.3 * np.sin(2 * np.pi * (300 + 300 * digit) * time_s + index)
            soundfile.write(root / "fsdd" / "recordings" / f"{digit}_theo_{index}.wav", sound, 8000, subtype="PCM_16")
    rows = []
    for fold in range(1, 6):
        for take, rate in (("A", 8000), ("B", 44100)):
            clip = 0.1 * rng.standard_normal(5 * rate)
            if take == "A":
                clip[rate:] = 0  # Sounds for one second only.
            name = f"{fold}-1-{take}-0.wav"
            soundfile.write(root / "esc50" / "audio" / name, clip, rate, subtype="PCM_16")
            rows.append([name, fold, 0, "dog", "True", 1, take])
    rows.append(["not-in-esc10.wav", 1, 9, "crow", "False", 1, "A"])
    with (root / "esc50" / "meta" / "esc50.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def own_raw(tmp_path: Path) -> Path:
    """Raw files that a test may damage."""
    return make_raw(tmp_path / "raw")


# The recipe.


def test_layout_and_determinism(raw: Path, tmp_path: Path) -> None:
    first = load_dataset(DataRequest(SETTINGS, home=tmp_path / "1", data_root=raw))
    second = load_dataset(DataRequest(SETTINGS, home=tmp_path / "2", data_root=raw))
    assert first.fingerprint == second.fingerprint
    assert first.modalities == ("audio", "image")
    expected = shape_of(DataRequest(SETTINGS, Path(), None))
    for name, split in first.splits.items():
        assert len(split) == expected.n_samples[name]
        for modality, array in split.inputs.items():
            assert array.dtype == np.uint8
            assert array.shape[1:] == expected.inputs[modality]
            assert array[:].std() > 1
    assert "FSDD" not in first.card or "TIDIGITS" in first.card
    # Once built, the raw files are not needed.
    assert load_dataset(DataRequest(SETTINGS, home=tmp_path / "1", data_root=None)).fingerprint == first.fingerprint


def test_seed_changes_the_pairs(raw: Path, tmp_path: Path) -> None:
    first = load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=raw))
    other = load_dataset(DataRequest(SETTINGS.model_copy(update={"seed": 1}), home=tmp_path, data_root=raw))
    assert (first.splits["train"].labels != other.splits["train"].labels).any()


def test_the_spoken_digit_is_the_written_one(raw: Path, tmp_path: Path) -> None:
    """Without noise the loudest frequency is the tone of the label's digit."""
    loud = SETTINGS.model_copy(update={"snr_db": 60.0})
    split = load_dataset(DataRequest(loud, home=tmp_path, data_root=raw)).splits["train"]
    peaks_hz = split.inputs["audio"][:, 0].astype(float).mean(axis=2).argmax(axis=1) * 8000 / 222
    np.testing.assert_allclose(peaks_hz, 300 + 300 * split.labels, atol=60)


def test_at_least_five_is_of_the_digit(raw: Path, tmp_path: Path) -> None:
    dataset = load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=raw))
    assert set(dataset.tasks) == set(SETTINGS.tasks)
    for split in dataset.splits.values():
        assert [int(label in (5, 6, 7, 8, 9)) for label in split.labels] == split.tasks["at_least_five"].tolist()


def test_the_label_of_the_noise_is_its_class(own_raw: Path, tmp_path: Path) -> None:
    """Noise far over the speech, a tone of its own for each class: the loudest frequency tells the label."""
    rows = []
    for fold in range(1, 6):
        for target, category in ((40, "helicopter"), (1, "rooster"), (10, "rain")):
            name = f"{fold}-2-A-{target}.wav"
            tone = 0.5 * np.sin(2 * np.pi * (500 + 50 * target) * np.arange(40000) / 8000)
            soundfile.write(own_raw / "esc50" / "audio" / name, tone, 8000, subtype="PCM_16")
            rows.append([name, fold, target, category, "True", 2, "A"])
    with (own_raw / "esc50" / "meta" / "esc50.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])
    loud = SETTINGS.model_copy(update={"snr_db": -60.0})
    dataset = load_dataset(DataRequest(loud, home=tmp_path, data_root=own_raw))
    assert dataset.tasks["noise"] == 3
    assert "rooster, rain, helicopter" in dataset.card
    for split in dataset.splits.values():
        noise = split.tasks["noise"]
        assert set(noise.tolist()) == {0, 1, 2}
        peaks_hz = split.inputs["audio"][:, 0].astype(float).mean(axis=2).argmax(axis=1) * 8000 / 222
        np.testing.assert_allclose(peaks_hz, 500 + 50 * np.array([1, 10, 40])[noise], atol=60)


def test_a_table_without_classes_is_named(own_raw: Path, tmp_path: Path) -> None:
    table = own_raw / "esc50" / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("target", "goal"))
    with pytest.raises(DataError, match=r"esc50.csv: expected ESC-50's table with filename, fold, target"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


def test_recordings_and_clips_are_split(raw: Path) -> None:
    speech = avmnist._read_speech(raw, lambda *_: None, [])
    assert {split: {len(clips) for clips in by_digit.values()} for split, by_digit in speech.items()} == {
        "train": {3},
        "validation": {2},
        "test": {2},
    }
    assert max(len(clip) for by_digit in speech.values() for clips in by_digit.values() for clip in clips) == 7326
    noise, names = avmnist._read_noise(raw, lambda *_: None, [])
    assert names == ["dog"]
    assert {split: len(clips) for split, clips in noise.items()} == {"train": 6, "validation": 2, "test": 2}
    assert {(len(clip), label) for clips in noise.values() for clip, label in clips} == {(40000, 0)}


def test_images_of_the_splits_are_disjoint(raw: Path, tmp_path: Path) -> None:
    every = AvmnistSettings(
        name="avmnist", n_train=220, n_validation=50, n_test=60, degradation="residual", pca_components=1
    )
    splits = load_dataset(DataRequest(every, home=tmp_path, data_root=raw)).splits
    seen = {name: {row.tobytes() for row in split.inputs["image"]} for name, split in splits.items()}
    assert {name: len(rows) for name, rows in seen.items()} == {"train": 220, "validation": 20, "test": 60}
    assert len(seen["train"] | seen["validation"] | seen["test"]) == 300


def test_signal_to_noise_ratio_and_near_silent_crops(raw: Path) -> None:
    noise = avmnist._read_noise(raw, lambda *_: None, [])[0]["train"]
    silent = {digit: [np.full(3000, 1e-4, np.float32)] for digit in range(10)}
    for seed in range(30):
        sound, _ = avmnist._noisy(3, silent, noise, -13.0, np.random.default_rng(seed))
        power = float(np.square(sound, dtype=np.float64).mean())
        # The speech itself adds a twentieth and its overlap with the noise a little.
        assert 10 * np.log10(power / 1e-8) == pytest.approx(13.0, abs=0.6)


def test_pca_energy_is_the_other_way_to_say_it(raw: Path, tmp_path: Path) -> None:
    energy = AvmnistSettings(
        name="avmnist", n_train=100, n_validation=50, n_test=50, pca_components=None, pca_energy=0.25
    )
    assert " leading principal components" in load_dataset(DataRequest(energy, home=tmp_path, data_root=raw)).card


# Raw files that are missing or damaged.


def test_without_a_folder_the_message_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=None))
    message = str(caught.value)
    for part in ("mnist/", "fsdd/", "esc50/", "train-images-idx3-ubyte.gz", "--data-root", "MFAS_DATA", "digits"):
        assert part in message
    assert not list((tmp_path / "data").iterdir())


def test_only_what_is_missing_is_asked_for(own_raw: Path, tmp_path: Path) -> None:
    (own_raw / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    (own_raw / "esc50" / "meta" / "esc50.csv").unlink()
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))
    message = str(caught.value)
    assert "missing: t10k-labels-idx1-ubyte.gz" in message
    assert "missing: meta/esc50.csv" in message
    assert "fsdd" not in message


def test_missing_clips_are_counted(own_raw: Path, tmp_path: Path) -> None:
    for file in list((own_raw / "esc50" / "audio").glob("*-B-0.wav")):
        file.unlink()
    with pytest.raises(DataNotFoundError, match=r"5 of the 10 ESC-10 clips .*1-1-B-0.wav, .* \.\.\."):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


def test_a_truncated_archive_is_named(own_raw: Path, tmp_path: Path) -> None:
    file = own_raw / "mnist" / "train-images-idx3-ubyte.gz"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: not a whole gzipped IDX file"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.full(240, 10), "row 0: expected a label from 0 to 9, found 10"), (np.zeros(239), "239 labels for 240 images")],
)
def test_wrong_labels_are_named(own_raw: Path, tmp_path: Path, labels: np.ndarray, message: str) -> None:
    write_idx(own_raw / "mnist" / "train-labels-idx1-ubyte.gz", labels)
    with pytest.raises(DataError, match=message):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


def test_idx_of_another_type_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "floats.gz"
    file.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 0x0D, 1, 4) + b"\0" * 16))
    with pytest.raises(DataError, match="type 0x0d"):
        avmnist.read_idx(file)


def test_a_recording_that_cannot_be_read_is_named(own_raw: Path, tmp_path: Path) -> None:
    (own_raw / "fsdd" / "recordings" / "4_theo_5.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"4_theo_5.wav: not a readable recording"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


def test_all_recordings_that_cannot_be_used_are_named(own_raw: Path, tmp_path: Path) -> None:
    recordings, clips = own_raw / "fsdd" / "recordings", own_raw / "esc50" / "audio"
    soundfile.write(recordings / "1_theo_10.wav", np.zeros(0), 8000, subtype="PCM_16")
    soundfile.write(recordings / "2_theo_20.wav", np.zeros(3000), 8000, subtype="PCM_16")
    soundfile.write(recordings / "3_theo_3.wav", np.array([0.1, np.nan] * 1000), 8000, subtype="FLOAT")
    soundfile.write(clips / "2-1-A-0.wav", np.zeros(0), 44100, subtype="PCM_16")
    soundfile.write(clips / "4-1-B-0.wav", np.ones(100), 8000, subtype="PCM_16")
    with pytest.raises(DataError) as caught:
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == [
        "1_theo_10.wav",
        "2_theo_20.wav",
        "3_theo_3.wav",
        "2-1-A-0.wav",
        "4-1-B-0.wav",
    ]
    for line, rule in zip(
        lines, ("without samples", "silence", "NaN", "without samples", "at least 0.92 s"), strict=True
    ):
        assert rule in line
    assert list((tmp_path / "data").iterdir()) == []


def test_a_digit_without_recordings_is_named(own_raw: Path, tmp_path: Path) -> None:
    for index in (5, 9):
        (own_raw / "fsdd" / "recordings" / f"7_theo_{index}.wav").unlink()
    with pytest.raises(DataError, match=r"no recording of \[7\] for the validation split"):
        load_dataset(DataRequest(SETTINGS, home=tmp_path, data_root=own_raw))


# The real files.


@pytest.mark.skipif(not os.environ.get("MFAS_DATA"), reason="MFAS_DATA names no folder of raw data")
def test_real_files(tmp_path: Path) -> None:
    root = Path(os.environ["MFAS_DATA"])
    tiny = AvmnistSettings(name="avmnist", n_train=200, n_validation=100, n_test=100)
    dataset = load_dataset(DataRequest(tiny, home=tmp_path, data_root=root))
    assert "60,000 and 10,000 real images" in dataset.card
    assert "5 leading principal components of the training images kept, 33%" in dataset.card
    # The darkest and the brightest values leave room: nothing is clipped.
    images = dataset.splits["train"].inputs["image"]
    assert images.min() > 0
    assert images.max() < 255

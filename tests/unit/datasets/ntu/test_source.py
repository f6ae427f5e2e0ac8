"""Pairs found below a folder, what is wrong with them, and the generated files."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets.ntu import find, make, names, skeleton, video
from mfas_optuna.datasets.ntu.missing import FILE, missing_skeletons
from mfas_optuna.datasets.samples import Problem, SampleError, Source
from mfas_optuna.datasets.stand_in import MARK
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec.datasets import NtuSettings

SETTINGS = NtuSettings(name="ntu", n_frames=8, frame_size=32, n_skeleton_frames=32)
N_SAMPLES, N_CLASSES = 240, 6
SPLITS = ("train", "validation", "test")

TRAIN, VALIDATION, TEST = "S001C001P001R001A00", "S001C001P002R001A00", "S001C001P003R001A00"
"""Names of samples, less the last digit of the action."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "data"
    make(folder, n_samples=N_SAMPLES, n_classes=N_CLASSES, seed=3)
    return folder


def lay_out(folder: Path, samples: Iterable[str]) -> Path:
    """Write empty files: finding samples does not read them."""
    for kind, ending in (("nturgb+d_skeletons", ".skeleton"), ("nturgb+d_rgb", "_rgb.avi")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for sample in samples:
            (folder / kind / f"{sample}{ending}").touch()
    return folder


def six(folder: Path) -> Path:
    return lay_out(folder, [split + action for split in (TRAIN, VALIDATION, TEST) for action in "13"])


def sizes(source: Source) -> tuple[int, ...]:
    return tuple(len(source.splits[split]) for split in SPLITS)


def only(source: Source) -> Problem:
    assert len(source.problems) == 1, [str(problem) for problem in source.problems]
    return source.problems[0]


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    source = find(SETTINGS, six(tmp_path))
    assert sizes(source) == (2, 2, 2)
    assert source.target.names == ("A001", "A003")
    assert source.target.kind == "multiclass"
    for split, prefix in zip(SPLITS, (TRAIN, VALIDATION, TEST), strict=True):
        assert [(sample.name, sample.label) for sample in source.splits[split]] == [
            (prefix + "1", 0),
            (prefix + "3", 1),
        ]
        for sample in source.splits[split]:
            assert [Path(at).name for at in sample.at] == [f"{sample.name}.skeleton", f"{sample.name}_rgb.avi"]
    assert list(source.modalities) == ["video", "pose"]
    assert source.modalities["video"].shape == (3, 8, 32, 32)
    assert source.modalities["pose"].shape == (3, 32, 25, 2)
    assert not source.problems
    assert source.stand_in == ""
    assert not source.reads_here


def test_folders_may_have_any_names_and_be_links(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in six(tmp_path / "given").rglob("*.*"):
        if file.is_file():
            shutil.copy2(file, flat)
    expected = find(SETTINGS, tmp_path / "given")
    assert find(SETTINGS, flat).facts == expected.facts
    (tmp_path / "linked" / "deep").mkdir(parents=True)
    (tmp_path / "linked" / "deep" / "files").symlink_to(flat)
    (tmp_path / "linked" / "round").symlink_to(tmp_path / "linked")
    linked = find(SETTINGS, tmp_path / "linked")
    assert sizes(linked) == (2, 2, 2)
    assert not linked.problems


def test_what_is_not_of_the_data_set_is_passed_over(tmp_path: Path) -> None:
    six(tmp_path)
    for name in (f"._{TRAIN}1.skeleton", f"{TRAIN}1_ir.avi", "README.txt", f"{TRAIN}9_rgb.mp4"):
        (tmp_path / name).touch()
    source = find(SETTINGS, tmp_path)
    assert sizes(source) == (2, 2, 2)
    assert not source.problems
    assert source.facts["files"] == 12


def test_facts_tell_files_from_others(tmp_path: Path) -> None:
    facts = [find(SETTINGS, six(tmp_path)).facts]
    facts.append(find(SETTINGS, tmp_path).facts)
    assert facts[0] == facts[1]
    (tmp_path / "nturgb+d_rgb" / f"{TRAIN}1_rgb.avi").write_text("longer")
    facts.append(find(SETTINGS, tmp_path).facts)
    (tmp_path / FILE).write_text(f"{TRAIN}3\n")
    facts.append(find(SETTINGS, tmp_path).facts)
    assert len({found["sha256"] for found in facts}) == 3
    assert facts[-1]["files"] == 13


@pytest.mark.parametrize(
    ("ending", "kind"), [(".skeleton", "skeleton"), ("_rgb.avi", "video")], ids=["skeleton", "video"]
)
def test_a_missing_modality(tmp_path: Path, ending: str, kind: str) -> None:
    next(six(tmp_path).rglob(f"{TEST}3{ending}")).unlink()
    lay_out(tmp_path, [TEST[:-7] + "R002A003"])
    source = find(SETTINGS, tmp_path)
    problem = only(source)
    assert problem.sample == f"{TEST}3"
    assert problem.is_error
    assert f"no {kind} file: {TEST}3{ending} is nowhere below it" in str(problem)
    assert sizes(source) == (2, 2, 2)


def test_a_link_that_leads_nowhere_is_a_missing_file(tmp_path: Path) -> None:
    video_file = next(six(tmp_path).rglob(f"{TEST}3_rgb.avi"))
    video_file.unlink()
    video_file.symlink_to(tmp_path / "nowhere")
    assert any(problem.sample == f"{TEST}3" for problem in find(SETTINGS, tmp_path).problems)


def test_duplicates(tmp_path: Path) -> None:
    six(tmp_path)
    lay_out(tmp_path, [f"{TRAIN[:-7]}R002A001"])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / f"{TRAIN}1.skeleton").touch()
    problem = only(find(SETTINGS, tmp_path))
    assert problem.sample == f"{TRAIN}1"
    assert "2 skeleton files: " in problem.rule
    assert str(tmp_path / "again") in problem.rule


@pytest.mark.parametrize(
    "name", ["S001C001P001R001A01.skeleton", "holiday_rgb.avi", f"{TRAIN}1.avi", f"x{TRAIN}1.skeleton"]
)
def test_misnamed_files(tmp_path: Path, name: str) -> None:
    (six(tmp_path) / name).touch()
    problem = only(find(SETTINGS, tmp_path))
    assert problem.where == str(tmp_path / name)
    assert problem.is_error
    assert problem.sample


def test_an_empty_split(tmp_path: Path) -> None:
    lay_out(tmp_path, [f"{TRAIN}1", f"{TEST}1"])
    problem = only(find(SETTINGS, tmp_path))
    assert problem.where == f"{tmp_path}, validation"
    assert problem.is_error
    assert not problem.sample
    assert "search has no sample in this split" in problem.rule


@pytest.mark.parametrize("split", SPLITS)
def test_an_action_that_a_split_has_not(tmp_path: Path, split: str) -> None:
    prefix = {"train": TRAIN, "validation": VALIDATION, "test": TEST}[split]
    for file in list(six(tmp_path).rglob(f"{prefix}3*")):
        file.unlink()
    problem = only(find(SETTINGS, tmp_path))
    assert problem.where == f"{tmp_path}, {split}"
    assert "no sample of A003" in problem.rule
    assert problem.is_error == (split == "train")


def test_listed_samples_are_left_out_and_counted(tmp_path: Path) -> None:
    listed = "S001C002P005R002A008"
    assert listed in missing_skeletons()
    lay_out(tmp_path, [f"{prefix}{action}" for prefix in (TRAIN, VALIDATION, TEST) for action in "18"])
    (tmp_path / f"{listed}_rgb.avi").touch()
    source = find(SETTINGS, tmp_path)
    assert sizes(source) == (2, 2, 2)
    assert not source.problems
    assert "left out: 1 samples with missing" in source.card
    (tmp_path / FILE).write_text("S001C001P002R001A001\n")
    source = find(SETTINGS, tmp_path)
    assert sizes(source) == (2, 1, 2)
    assert (
        f"left out: 2 samples with missing or incomplete skeletons, as listed by the data set's authors and in {FILE}"
        in (source.card)
    )


def test_samples_that_the_protocol_does_not_use(tmp_path: Path) -> None:
    lay_out(six(tmp_path), ["S001C001P016R001A002"])
    source = find(SETTINGS, tmp_path)
    assert sizes(source) == (2, 2, 2)
    assert source.target.names == ("A001", "A003")
    assert "1 samples that the protocol does not use" in source.card
    wider = find(SETTINGS.model_copy(update={"protocol": "cross_subject"}), tmp_path)
    assert sizes(wider) == (3, 2, 2)


def test_files_of_ntu_120_are_a_warning(tmp_path: Path) -> None:
    lay_out(six(tmp_path), ["S018C001P042R001A001"])
    source = find(SETTINGS, tmp_path)
    problem = only(source)
    assert not problem.is_error
    assert "S018C001P042R001A001" in problem.rule
    assert "NTU RGB+D 120" in problem.remedy
    assert sizes(source) == (2, 2, 3)


def test_without_files_the_layout_is_explained(tmp_path: Path) -> None:
    for root in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataNotFoundError, match=r"nturgb\+d_skeletons/SsssCcccPpppRrrrAaaa.skeleton"):
            find(SETTINGS, root)


def test_a_sample_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    source = find(SETTINGS, six(tmp_path))
    with pytest.raises(SampleError) as caught:
        source.read(source.splits["train"][0])
    assert caught.value.problem.sample == f"{TRAIN}1"


def test_made_files_are_found_and_read(made: Path) -> None:
    source = find(SETTINGS, made)
    assert not source.problems
    assert sizes(source) == (144, 48, 48)
    assert source.target.names == tuple(f"A00{action}" for action in range(1, 7))
    assert "stand-in for NTU RGB+D" in source.stand_in
    assert "samples 240" in source.stand_in
    read = pickle.loads(pickle.dumps(source.read))  # noqa: S301  # It goes to other processes.
    sample = source.splits["train"][0]
    values = read(sample)
    assert list(values) == list(source.modalities)
    for modality, expected in source.modalities.items():
        assert values[modality].shape == expected.shape
        assert values[modality].dtype == expected.dtype
    skeleton_file, video_file = map(Path, sample.at)
    np.testing.assert_array_equal(values["video"], video.read_frames(video_file, 8, 32))
    np.testing.assert_array_equal(values["pose"], skeleton.to_sample(skeleton.read(skeleton_file), 32))


@pytest.mark.parametrize("protocol", ["search", "cross_subject", "cross_view"])
def test_made_files_suit_every_protocol(tmp_path: Path, protocol: names.Protocol) -> None:
    make(tmp_path, n_samples=15, n_classes=3, seed=0)
    source = find(SETTINGS.model_copy(update={"protocol": protocol}), tmp_path)
    assert not source.problems
    for split in SPLITS:
        assert {sample.label for sample in source.splits[split]} == {0, 1, 2}


def test_made_skeletons_are_of_all_kinds(made: Path) -> None:
    kinds: Counter[str] = Counter()
    for file in sorted(made.rglob("*.skeleton")):
        read = skeleton.read(file)
        seen = set(np.concatenate([body.frames for body in read.bodies]).tolist())
        kinds[f"{len(read.bodies)} bodies"] += 1
        kinds["frames without a body"] += len(seen) < read.n_frames
        actor = max(read.bodies, key=lambda body: body.spread)
        assert 30 <= read.n_frames <= 48
        assert 2 < actor.joints[..., 2].mean() < 5  # Metres from the camera.
        assert actor.joints[:, 3, 1].mean() > actor.joints[:, 0, 1].mean() > actor.joints[:, 14, 1].mean()  # It stands.
    assert set(kinds) == {"1 bodies", "2 bodies", "frames without a body"}
    assert min(kinds.values()) >= 10


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        make(tmp_path / name, n_samples=10, n_classes=2, seed=seed)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert len(one) == 21
    assert MARK in one
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_a_name_is_given_once_and_none_is_listed(tmp_path: Path) -> None:
    from mfas_optuna.datasets.ntu.make import MAX_CLASSES, MOST_OF_A_CLASS, _names

    generated = _names(MAX_CLASSES)
    given = [str(next(generated)) for _ in range(MAX_CLASSES * MOST_OF_A_CLASS)]
    assert len(set(given)) == len(given)
    assert missing_skeletons().isdisjoint(given)


def test_making_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="expected an empty folder"):
        make(tmp_path, n_samples=10, n_classes=2)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="expected 30 to 6000 for 6 classes, found 29"):
        make(tmp_path / "new", n_samples=29, n_classes=6)
    with pytest.raises(DataError, match="classes: expected 2 to 60, found 61"):
        make(tmp_path / "new", n_samples=600, n_classes=61)
    with pytest.raises(DataError, match="cannot be written"):
        make(tmp_path / "mine.txt", n_samples=10, n_classes=2)


def test_making_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make(tmp_path / "new", n_samples=10, n_classes=2, progress=lambda _, done, total: told.append((done, total)))
    assert told == [(done, 10) for done in range(11)]


def pose_statistics(pose: np.ndarray) -> np.ndarray:
    """Return how far each joint moves up and down and to and fro, and how far apart the ankles are."""
    actor = pose[..., 0]
    ankles = actor[:, ::2, :, 14] - actor[:, ::2, :, 18]
    return np.concatenate(
        [actor[:, 1:].std(2).reshape(len(pose), -1), np.hypot(*ankles.swapaxes(0, 1)).mean(1)[:, None]], 1
    )


def video_statistics(frames: np.ndarray) -> np.ndarray:
    """Return the colour of the patch (what differs from the background), and how far it reaches in each direction."""
    values = frames.astype(float)
    differences = values - np.median(values, axis=(2, 3, 4), keepdims=True)
    is_patch = np.abs(differences).sum(1) > 80
    weight = is_patch.mean((1, 2, 3)) + 1e-9
    colour = (differences * is_patch[:, None]).mean((2, 3, 4)) / weight[:, None]
    places = is_patch.mean(1)
    rows, columns = places.sum(2), places.sum(1)
    spreads = [
        np.sqrt(np.maximum((p * grid**2).sum(1) / p.sum(1) - ((p * grid).sum(1) / p.sum(1)) ** 2, 0))
        for p, grid in ((rows, np.arange(32)), (columns, np.arange(32)))
    ]
    return np.concatenate([colour, np.stack(spreads, axis=1)], axis=1)


def test_fusion_gains_on_made_files(made: Path) -> None:
    source = find(SETTINGS, made)
    statistics: dict[str, dict[str, np.ndarray]] = {}
    labels: dict[str, np.ndarray] = {}
    for part, splits in (("train", ("train",)), ("held back", ("validation", "test"))):
        samples = [sample for split in splits for sample in source.splits[split]]
        values = [source.read(sample) for sample in samples]
        statistics[part] = {
            "pose": pose_statistics(np.stack([value["pose"] for value in values])),
            "video": video_statistics(np.stack([value["video"] for value in values])),
        }
        labels[part] = np.array([sample.label for sample in samples])

    def accuracy(*modalities: str) -> float:
        """Of ridge regression on the classes."""
        train, held_back = (
            np.concatenate([statistics[part][modality] for modality in modalities], axis=1)
            for part in ("train", "held back")
        )
        mean, deviation = train.mean(0), train.std(0)
        train, held_back = ((matrix - mean) / deviation for matrix in (train, held_back))
        targets = np.eye(N_CLASSES)[labels["train"]] - 1 / N_CLASSES
        weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ targets)
        return float(((held_back @ weights).argmax(1) == labels["held back"]).mean())

    pose, frames, both = accuracy("pose"), accuracy("video"), accuracy("pose", "video")
    # Measured with seeds 3 to 5: 0.53 to 0.58, 0.63 to 0.76, and 14 to 19 points more together.
    assert 0.4 < pose < 0.8
    assert 0.4 < frames < 0.8
    assert both > max(pose, frames) + 0.08

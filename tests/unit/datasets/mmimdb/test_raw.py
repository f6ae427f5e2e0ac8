"""The raw files."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mfas_optuna.datasets.mmimdb import find
from mfas_optuna.datasets.mmimdb.found import GENRES, LEFT_OUT
from mfas_optuna.datasets.samples import Problem, SampleError, Source
from mfas_optuna.datasets.stand_in import MARK
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import MmimdbSettings

SETTINGS = MmimdbSettings(name="mmimdb", image_height=64, image_width=40)


@pytest.fixture
def root(made_raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_raw, tmp_path / "copy"))


def split_of(root: Path) -> Any:
    return json.loads((root / "split.json").read_text(encoding="utf-8"))


def film(root: Path, index: int = 0, split: str = "train") -> str:
    return str(split_of(root)[split][index])


def edit(root: Path, name: str, **values: Any) -> None:
    """Change keys of a film's JSON; None removes one."""
    file = root / "dataset" / f"{name}.json"
    now = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps({key: value for key, value in now.items() if value is not None}), encoding="utf-8")


def errors(source: Source) -> list[Problem]:
    return [problem for problem in source.problems if problem.is_error]


def names_in(source: Source) -> set[str]:
    return {sample.name for split in source.splits.values() for sample in split}


def test_what_is_read_is_what_was_written(root: Path) -> None:
    source = find(SETTINGS, root)
    written = split_of(root)
    assert not source.problems
    assert "raw files" in source.card
    assert {split: [sample.name for sample in samples] for split, samples in source.splits.items()} == {
        "train": written["train"],
        "validation": written["dev"],
        "test": written["test"],
    }
    assert source.target.names == GENRES[:6]  # those that occur, since it is a stand-in
    for sample in source.splits["validation"]:
        facts = json.loads((root / "dataset" / f"{sample.name}.json").read_text(encoding="utf-8"))
        assert {GENRES[index] for index, value in enumerate(sample.label) if value} == set(facts["genres"])
        read = source.read(sample)
        assert {name: (value.shape, value.dtype) for name, value in read.items()} == {
            name: (what.shape, what.dtype) for name, what in source.modalities.items()
        }
    (root / MARK).unlink()
    assert find(SETTINGS, root).target.names == GENRES


def test_posters_are_scaled_and_cropped_about_their_middle(root: Path) -> None:
    name = film(root)
    # 80 x 20 pixels, left half red and right half blue: of them the middle 12.5 x 20 becomes 40 x 64.
    colours = np.zeros((20, 80, 3), dtype=np.uint8)
    colours[:, :40, 0], colours[:, 40:, 2] = 200, 200
    Image.fromarray(colours).save(root / "dataset" / f"{name}.jpeg", quality=100, subsampling=0)
    source = find(SETTINGS, root)
    image = source.read(source.splits["train"][0])["image"].astype(int)
    assert np.abs(image[:, :, :10] - np.array([200, 0, 0])[:, None, None]).max() < 12
    assert np.abs(image[:, :, 30:] - np.array([0, 0, 200])[:, None, None]).max() < 12


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_posters_in_other_modes_become_rgb(root: Path, mode: str) -> None:
    Image.new("RGB", (80, 128), (90, 90, 90)).convert(mode).save(root / "dataset" / f"{film(root)}.jpeg")
    source = find(SETTINGS, root)
    image = source.read(source.splits["train"][0])["image"].astype(int)
    assert image.shape == (3, 64, 40)
    assert np.abs(image - 90).max() < 8


def test_the_longest_plot_counts(root: Path) -> None:
    first, second = film(root, 0), film(root, 1)
    edit(root, first, plot=["Short one.", "Rather a longer story of a dog", "x"])
    edit(root, second, plot="Rather a longer story of a dog")
    source = find(SETTINGS, root)
    texts = [source.read(sample)["text"] for sample in source.splits["train"][:2]]
    np.testing.assert_array_equal(texts[0], texts[1])


def test_a_truncated_poster_is_an_error(root: Path) -> None:
    file = root / "dataset" / f"{film(root)}.jpeg"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source = find(SETTINGS, root)
    with pytest.raises(SampleError, match=r"jpeg: the poster cannot be read \(.*truncated") as caught:
        source.read(source.splits["train"][0])
    assert caught.value.problem.sample == film(root)
    source.read(source.splits["train"][1])


def test_what_is_no_picture_is_an_error(root: Path) -> None:
    (root / "dataset" / f"{film(root)}.jpeg").write_text("<html>not found</html>")
    source = find(SETTINGS, root)
    with pytest.raises(SampleError, match="the poster cannot be read"):
        source.read(source.splits["train"][0])


@pytest.mark.parametrize("limit", [80 * 100, 80 * 40])
def test_a_decompression_bomb_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    # Above its limit Pillow warns, above twice its limit it refuses: both are errors here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    source = find(SETTINGS, root)
    with pytest.raises(SampleError, match="decompression bombs") as caught:
        source.read(source.splits["train"][0])
    assert caught.value.problem.sample == film(root)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"genres": None}, "genres: expected a list of names, found none"),
        ({"genres": []}, "genres: expected a list of names, found none"),
        ({"genres": "Drama"}, "genres: expected a list of names, found 'Drama'"),
        ({"plot": None}, "plot: expected a list of texts, found none"),
        ({"plot": []}, "plot: expected a text, found no word"),
        ({"plot": ["?!", ""]}, "plot: expected a text, found no word"),
        ({"plot": [3]}, "plot: expected a list of texts, found [3]"),
    ],
)
def test_facts_that_are_missing(root: Path, values: dict[str, Any], rule: str) -> None:
    name = film(root)
    edit(root, name, **values)
    source = find(SETTINGS, root)
    (problem,) = errors(source)
    assert problem.sample == name
    assert problem.where.endswith(f"{name}.json")
    assert rule in problem.rule
    assert name not in names_in(source)


@pytest.mark.parametrize(("content", "rule"), [('{"genres": ["Drama"', "expected JSON"), ("[1, 2]", "a JSON object")])
def test_malformed_json(root: Path, content: str, rule: str) -> None:
    name = film(root)
    (root / "dataset" / f"{name}.json").write_text(content)
    source = find(SETTINGS, root)
    (problem,) = errors(source)
    assert (problem.sample, rule in problem.rule) == (name, True)
    assert name not in names_in(source)


def test_genres_that_are_unknown_or_left_out(root: Path) -> None:
    unknown, news, only_unknown = film(root, 0), film(root, 1), film(root, 2)
    edit(root, unknown, genres=["Comedy", "Anime"])
    edit(root, news, genres=["News", "Adult"])
    edit(root, only_unknown, genres=["Anime"])
    source = find(SETTINGS, root)
    assert not errors(source)
    assert [problem.rule for problem in source.problems] == [
        f"genre 'Anime', of 2 films ({unknown}, {only_unknown}), is none of the authors' 27.",
        f"2 films ({news}, {only_unknown}) without any of the authors' 23 genres.",
    ]
    assert names_in(source).isdisjoint({news, only_unknown})
    assert source.splits["train"][0].label == tuple(int(genre == "Comedy") for genre in source.target.names)
    assert len(GENRES) + len(LEFT_OUT) == 27


def test_a_film_in_two_splits(root: Path) -> None:
    split = split_of(root)
    leaked = split["train"][0]
    split["test"].append(leaked)
    (root / "split.json").write_text(json.dumps(split))
    source = find(SETTINGS, root)
    (problem,) = errors(source)
    assert problem.sample == leaked
    assert f"{leaked} is in test and already in train" in problem.rule
    assert leaked not in {sample.name for sample in source.splits["test"]}


@pytest.mark.parametrize("missing", ["json", "jpeg"])
def test_a_film_without_its_files(root: Path, missing: str) -> None:
    name = film(root)
    (root / "dataset" / f"{name}.{missing}").unlink()
    source = find(SETTINGS, root)
    (problem,) = errors(source)
    assert problem.sample == name
    assert f"no {name}.{missing}" in problem.rule
    assert name not in names_in(source)


def test_files_of_films_in_no_split_are_a_warning(root: Path) -> None:
    split = split_of(root)
    spare = split["train"].pop()
    (root / "split.json").write_text(json.dumps(split))
    (problem,) = find(SETTINGS, root).problems
    assert not problem.is_error
    assert f"1 film ({spare}) in the folder and not in split.json" in problem.rule


def test_a_genre_that_a_split_lacks(root: Path) -> None:
    for name in split_of(root)["train"]:
        edit(root, name, genres=["Drama"])
    (problem,) = find(SETTINGS, root).problems
    assert (problem.where, problem.is_error) == ("train split", True)
    assert "no film of Comedy, Romance" in problem.rule


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "found no JSON"),
        ("[]", "found no ids for 'train'"),
        ('{"train": ["9000001"], "test": ["9000002"]}', "found no ids for 'dev'"),
        ('{"train": ["9000001"], "dev": [], "test": ["9000002"]}', "found no ids for 'dev'"),
        ('{"train": ["../secret"], "dev": ["1"], "test": ["2"]}', "found '../secret'"),
        ('{"train": [9000001], "dev": ["1"], "test": ["2"]}', "found 9000001"),
    ],
)
def test_malformed_splits(root: Path, content: str, message: str) -> None:
    (root / "split.json").write_text(content)
    with pytest.raises(DataError, match=message):
        find(SETTINGS, root)


def test_without_pillow_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find(SETTINGS, root)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'mfas-optuna\[mmimdb\]'"):
        source.read(source.splits["train"][0])


def test_many_threads_read_what_one_reads(root: Path) -> None:
    source = find(SETTINGS, root)
    samples = source.splits["train"]
    with ThreadPoolExecutor(4) as threads:
        by_many = list(threads.map(source.read, samples))
    for sample, read in zip(samples, by_many, strict=True):
        one = source.read(sample)
        assert all(np.array_equal(one[modality], read[modality]) for modality in one)


def test_no_files_at_all(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no folder was named"):
        find(SETTINGS, None)
    with pytest.raises(DataNotFoundError, match=r"expected multimodal_imdb\.hdf5 .*has neither"):
        find(SETTINGS, tmp_path / "nothing")
    with pytest.raises(DataNotFoundError, match="source = 'hdf5'"):
        find(SETTINGS.model_copy(update={"source": "hdf5"}), root)
    shutil.rmtree(root / "dataset")
    with pytest.raises(DataNotFoundError, match="no such folder"):
        find(SETTINGS, root)


def test_facts_change_with_the_files(root: Path) -> None:
    before = find(SETTINGS, root).facts
    assert find(SETTINGS, root).facts == before
    edit(root, film(root), title="Another title, longer than before")
    assert find(SETTINGS, root).facts != before


def test_word_vectors_of_a_file(root: Path) -> None:
    settings = SETTINGS.model_copy(update={"text_vectors": "vectors.txt", "text_width": 2})
    with pytest.raises(DataNotFoundError, match=r"vectors\.txt: no such file"):
        find(settings, root)
    (root / "vectors.txt").write_text("2 2\nking 1 2\nqueen 3 -4\n")
    edit(root, film(root, 0), plot=["The king, the King and a queen."])
    edit(root, film(root, 1), plot=["Nobody knows."])
    source = find(settings, root)
    assert "vectors.txt" in source.card
    np.testing.assert_allclose(source.read(source.splits["train"][0])["text"], [5 / 3, 0], rtol=1e-6)
    with pytest.raises(SampleError, match=r"no word of the plot is in .*vectors\.txt") as caught:
        source.read(source.splits["train"][1])
    assert caught.value.problem.sample == film(root, 1)
    assert source.facts != find(SETTINGS, root).facts

"""Which weights a layer starts from: the latest sound version of its key, by the records of complete trials."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from mfas_optuna.registry.blobs import FolderBlobStore, encode_layer
from mfas_optuna.registry.key import WeightKey
from mfas_optuna.registry.lineage import LayerRecord, rounds, versions, warm_start

KEY = WeightKey(0, 3, 2)


@pytest.fixture
def store(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path)


def publish(store: FolderBlobStore, value: float, shape: tuple[int, int] = (2, 3)) -> str:
    return store.put(encode_layer({"weight": torch.full(shape, value), "bias": torch.full(shape[:1], value)}))


def record(digest: str, key: WeightKey = KEY) -> LayerRecord:
    return LayerRecord(key, None, digest)


def test_keys_as_text() -> None:
    for key in (KEY, WeightKey(2, 64, 16, "relu")):
        assert WeightKey.from_text(key.as_text()) == key
    assert KEY.as_text() == "0:3:2"
    with pytest.raises(ValueError, match="0:48:16"):
        WeightKey.from_text("3:2")


def test_versions_are_latest_first_by_step_then_slot_then_number() -> None:
    complete = [
        ((1, 2, 7), [record("late slot")]),
        ((-1, 0, 99), [record("outside the schedule")]),
        ((1, 0, 9), [record("early slot")]),
        ((0, 5, 8), [record("early step")]),
        ((1, 2, 6), [record("same slot, smaller number"), record("other key", WeightKey(1, 9, 9))]),
    ]
    expected = ["late slot", "same slot, smaller number", "early slot", "early step", "outside the schedule"]
    assert versions(complete) == versions(reversed(complete)) == {KEY: expected, WeightKey(1, 9, 9): ["other key"]}


def test_without_a_version_the_fresh_weights_stay(store: FolderBlobStore) -> None:
    layer = nn.Linear(3, 2)
    fresh = layer.weight.clone()
    assert warm_start([layer], [KEY], {}, store) == [None]
    assert torch.equal(layer.weight, fresh)


def test_each_layer_starts_from_the_latest_of_its_key(store: FolderBlobStore) -> None:
    digests = [publish(store, 1.0), publish(store, 2.0), publish(store, 3.0, (2, 5))]
    layers = [nn.Linear(3, 2), nn.Linear(5, 2), nn.Linear(3, 2)]
    keys = [KEY, WeightKey(1, 5, 2), WeightKey(2, 3, 2)]
    found = {KEY: [digests[1], digests[0]], keys[1]: [digests[2]]}
    assert warm_start(layers, keys, found, store) == [digests[1], digests[2], None]
    assert layers[0].weight.unique().tolist() == [2.0]
    assert layers[1].bias.unique().tolist() == [3.0]


@pytest.mark.parametrize("fault", ["missing", "damaged", "shape", "partial", "nan"])
def test_a_version_that_cannot_be_used_is_named_and_passed_over(
    store: FolderBlobStore, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    sound = publish(store, 1.0)
    bad = publish(store, float("nan") if fault == "nan" else 2.0, (2, 4) if fault == "shape" else (2, 3))
    if fault == "missing":
        store.path(bad).unlink()
    elif fault == "damaged":
        store.path(bad).write_bytes(b"?")
    elif fault == "partial":
        bad = store.put(encode_layer({"weight": torch.full((2, 3), 2.0)}))
    layer = nn.Linear(3, 2)
    with caplog.at_level(logging.WARNING):
        assert warm_start([layer], [KEY], {KEY: [bad, sound]}, store) == [sound]
    assert layer.weight.unique().tolist() == [1.0]
    assert any("0:3:2" in message and bad[:12] in message for message in caplog.messages)


@pytest.mark.parametrize("fault", ["shape", "partial", "nan"])
def test_a_refused_version_leaves_the_fresh_weights_whole(store: FolderBlobStore, fault: str) -> None:
    content = {
        "shape": {"weight": torch.zeros(2, 3), "bias": torch.zeros(7)},
        "partial": {"weight": torch.zeros(2, 3)},
        "nan": {"weight": torch.zeros(2, 3), "bias": torch.full((2,), float("nan"))},
    }[fault]
    layer = nn.Linear(3, 2)
    fresh = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert warm_start([layer], [KEY], {KEY: [store.put(encode_layer(content))]}, store) == [None]
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in layer.state_dict().items())


def test_rounds_share_no_key_and_keep_the_order() -> None:
    a, b, c = (WeightKey(0, columns, 16) for columns in (24, 48, 96))
    above = WeightKey(1, 64, 16)
    #        0    1         2    3    4         5
    keys = [[a], [b, above], [a], [c], [c, above], [b]]
    assert rounds(keys) == [[0, 1, 3], [2, 4, 5]]
    # 1 waits for 0 because of a; so 2, which shares `above` with 1 alone, must wait for it too.
    assert rounds([[a], [a, above], [b, above]]) == [[0], [1], [2]]
    assert rounds([]) == []

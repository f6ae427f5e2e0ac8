"""The co-occurrence network."""

from __future__ import annotations

import pytest
import torch

from mfas_optuna.backbones import Tap, tapped_forward
from mfas_optuna.backbones.cooccurrence import motion
from mfas_optuna.spec import CooccurrenceSettings
from tests.unit.backbones.helpers import build_network, check_backward, n_parameters

LAST = ["conv5", "conv6", "flat", "fc7", "fc8"]
TAPS = [Tap(name, name) for name in LAST]
FULL = CooccurrenceSettings(kind="cooccurrence", features=LAST)
NARROW = CooccurrenceSettings(kind="cooccurrence", features=LAST, width=8)


def skeletons(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_forward_and_backward() -> None:
    model = build_network(FULL, (3, 32, 25, 2), 60)
    output, features = tapped_forward(model, TAPS, skeletons(4, 3, 32, 25, 2))
    assert output.shape == (4, 60)
    assert [tuple(feature.shape) for feature in features] == [
        (4, 128, 4, 4),
        (4, 256, 2, 2),
        (4, 1024),
        (4, 512),
        (4, 60),
    ]
    check_backward(model, output)


def test_number_of_parameters() -> None:
    stream = (3 * 64 + 64) + (64 * 32 * 3 + 32) + (25 * 32 * 9 + 32) + (32 * 64 * 9 + 64)
    joined = (128 * 128 * 9 + 128) + (128 * 256 * 9 + 256) + (1024 * 512 + 512) + (512 * 60 + 60)
    assert n_parameters(build_network(FULL, (3, 32, 25, 2), 60)) == 2 * stream + joined == 1_062_652


@pytest.mark.parametrize(("frames", "width"), [(16, 64), (2, 64), (33, 8), (17, 5), (16, 4)])
def test_short_videos_and_narrow_variants(frames: int, width: int) -> None:
    settings = FULL.model_copy(update={"width": width})
    model = build_network(settings, (3, frames, 25, 2), 7)
    output, features = tapped_forward(model, TAPS, skeletons(2, 3, frames, 25, 2))
    assert output.shape == (2, 7)
    assert [feature.shape[:2] for feature in features[:2]] == [(2, 2 * width), (2, 4 * width)]
    assert features[3].shape == (2, 8 * width)


@pytest.mark.parametrize("n_persons", [1, 2, 3])
def test_other_numbers_of_joints_and_persons(n_persons: int) -> None:
    model = build_network(NARROW, (3, 16, 13, n_persons), 7)
    output, features = tapped_forward(model, TAPS, skeletons(2, 3, 16, 13, n_persons))
    assert output.shape == (2, 7)
    assert all(len(feature) == 2 for feature in features)


def test_features_are_the_maximum_over_persons() -> None:
    model = build_network(NARROW, (3, 16, 25, 2), 7).eval()
    x = skeletons(3, 3, 16, 25, 2)
    _, both = tapped_forward(model, TAPS, x)
    _, first = tapped_forward(model, TAPS, x[..., :1])
    _, second = tapped_forward(model, TAPS, x[..., 1:])
    for index in (0, 1):
        torch.testing.assert_close(both[index], torch.maximum(first[index], second[index]))
    assert not torch.allclose(both[0], first[0])
    swapped = model(x.flip(4))
    torch.testing.assert_close(swapped, model(x))


def test_motion_is_the_difference_of_frames_at_the_same_length() -> None:
    x = skeletons(2, 3, 6, 5)
    result = motion(x)
    assert result.shape == x.shape
    difference = x[:, :, 1:] - x[:, :, :-1]
    # Frame t lies at (t + 0.5) * 5 / 6 - 0.5 of the differences; the first is before all of them.
    torch.testing.assert_close(result[:, :, 0], difference[:, :, 0])
    torch.testing.assert_close(result[:, :, 1], difference[:, :, 0] * 0.25 + difference[:, :, 1] * 0.75)


def test_the_two_streams_have_weights_of_their_own() -> None:
    """A skeleton that stands still and one that stands still elsewhere differ in the stream of joints alone."""
    model = build_network(NARROW, (3, 16, 25, 1), 7).eval()
    still = skeletons(1, 3, 1, 25, 1).expand(-1, -1, 16, -1, -1)
    taps = [Tap("joints", "joints"), Tap("motion", "motion")]
    _, (joints, moved) = tapped_forward(model, taps, still)
    _, (other_joints, other_moved) = tapped_forward(model, taps, still + 1)
    torch.testing.assert_close(moved, other_moved)
    assert not torch.allclose(joints, other_joints)
    assert not torch.equal(model.state_dict()["joints.conv1.0.weight"], model.state_dict()["motion.conv1.0.weight"])


def test_dropout_only_in_training() -> None:
    model = build_network(NARROW, (3, 16, 25, 2), 7)
    x = skeletons(2, 3, 16, 25, 2)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))

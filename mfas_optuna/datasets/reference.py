"""What the paper's own unimodal networks score, to tell whether a data set is as hard as the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from mfas_optuna.spec import AvmnistSettings, DatasetSettings

# MFAS Table 2: test accuracy of LeNet-5 on spectrograms and LeNet-3 on images.
_AVMNIST = {"audio": 0.6606, "image": 0.7452}
_TOLERANCE = 0.05
# Fewer pairs than the paper's make for lower scores; then the comparison says nothing.
_FULL_N_TRAIN, _FULL_N_TEST = 50_000, 10_000


@dataclass(frozen=True)
class Comparison:
    """A modality's test accuracy beside the paper's.

    Attributes:
        is_near: Within 5 points of it.
        text: One sentence for the user.
    """

    is_near: bool
    text: str


def compare_with_paper(settings: DatasetSettings, modality: str, test_score: float) -> Comparison | None:
    """Compare a backbone's test accuracy, 0 to 1, with the paper's; None where the paper has none to compare with."""
    if (
        not isinstance(settings, AvmnistSettings)
        or modality not in _AVMNIST
        or settings.n_train < _FULL_N_TRAIN
        or settings.n_test < _FULL_N_TEST
    ):
        return None
    paper = _AVMNIST[modality]
    difference = (test_score - paper) * 100
    is_near = round(abs(difference), 6) <= _TOLERANCE * 100
    text = f"{modality} alone: {test_score:.2%} on test, the paper's {paper:.2%} ({difference:+.1f} points)"
    if is_near:
        return Comparison(True, f"{text}: as hard as the paper's data.")
    side = "easier" if difference > 0 else "harder"
    return Comparison(
        False,
        f"{text}: more than {_TOLERANCE * 100:.0f} points away. These data, or this training, are {side} than "
        "the paper's: compare results with care.",
    )

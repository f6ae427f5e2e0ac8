"""Figures of the paper, quoted as printed: Perez-Rua et al., MFAS: Multimodal Fusion Architecture Search, CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARK = "quoted: paper"
"""Stands beside every figure that is not of this study."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """What the paper reports on a data set.

    Attributes:
        source: Table of the paper, split and scores.
        scores: Headings of the scores, as printed.
        rows: Method, modalities and scores, as printed.
        notes: Other figures, and what differs from a study of this project.
    """

    source: str
    scores: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


QUOTED: Mapping[str, Quoted] = {
    "avmnist": Quoted(
        "Table 2, AV-MNIST, test accuracy",
        ("Acc (%)",),
        (
            ("LeNet-3", "image", ("74.52",)),
            ("LeNet-5", "spectrogram", ("66.06",)),
            ("Two-stream", "image + spect.", ("87.78",)),
            ("CentralNet", "image + spect.", ("87.86",)),
            ("MFAS (Ours Top 1)", "image + spect.", ("88.38",)),
        ),
        (
            "Table 1, validation accuracy in the search, mean (std) of the top 5: random search 0.9203 (0.0021), MFAS "
            "0.9264 (0.0004).",
            "Table 6: a search of 3 * 4 = 12 steps took 3.42 hours on one P100.",
            "The paper's spoken digits are of TIDIGITS with noise of ESC-50, those here of the Free Spoken Digit "
            "Dataset with noise of ESC-10.",
        ),
    ),
    "mmimdb": Quoted(
        "Table 3, MM-IMDB, test",
        ("F1-W", "F1-M"),
        (
            ("Maxout MLP", "text", ("0.5754", "0.4598")),
            ("VGG Transfer", "image", ("0.4921", "0.3350")),
            ("Two-stream", "image + text", ("0.6081", "0.5049")),
            ("GMU", "image + text", ("0.6170", "0.5410")),
            ("CentralNet", "image + text", ("0.6223", "0.5344")),
            ("MFAS (Ours Top 1)", "image + text", ("0.6250", "0.5568")),
        ),
        ("Table 6: a search of 5 * 3 = 15 steps took 9.24 hours on one P100.",),
    ),
    "ntu": Quoted(
        "Table 4, NTU RGB+D, cross-subject test accuracy",
        ("Acc (%)",),
        (
            ("Inflated ResNet-50", "video", ("83.91",)),
            ("Co-occurrence", "pose", ("85.24",)),
            ("Two-stream", "video + pose", ("88.60",)),
            ("GMU", "video + pose", ("85.80",)),
            ("CentralNet", "video + pose", ("89.36",)),
            ("MFAS (Ours Top 1)", "video + pose", ("90.04 ± 0.6",)),
        ),
        (
            "Table 5, fusion parameters and validation accuracy in the search of the top 4: 2,229,248 and 0.9327; "
            "2,196,480 and 0.9289; 1,737,728 and 0.9301; 2,163,712 and 0.9346.",
            "Table 6: a search of 3 * 4 = 12 steps took 150.91 hours on four P100.",
        ),
    ),
}
"""By the name of the data set."""

DIFFERENCES = "The paper's backbones, preparation of data and training differ from those here."

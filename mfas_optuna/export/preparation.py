"""How raw data become a model's inputs, in words and numbers.

The words are those of the data card, which each data set writes; the numbers here are those that it does not have.
"""

from __future__ import annotations

import re
from typing import Any

from mfas_optuna.spec import AvmnistSettings, DatasetSettings, DigitsSettings

_BYTES = 255

LICENCES: dict[str, str] = {
    "digits": "Images: UCI optical recognition of handwritten digits, CC BY 4.0, as scikit-learn has them. The speech "
    "is synthetic.",
    "avmnist": "MNIST: no licence stated by its authors (Y. LeCun, C. Cortes, C. Burges). Free Spoken Digit Dataset: "
    "Z. Jackson et al., CC BY-SA 4.0. ESC: K. J. Piczak; ESC-50 as a whole is CC BY-NC 3.0, its part ESC-10 CC BY 3.0.",
    "ntu": "NTU RGB+D: for academic research only, by agreement with its authors (Rapid-Rich Object Search Lab, "
    "Nanyang Technological University); it must not be passed on, nor used commercially.",
    "mmimdb": "MM-IMDB: posters and plots of films, collected by J. Arevalo et al. for research; the rights in them "
    "are their owners'.",
    "arrays": "Data of the user: licence unknown. Fill in what holds for them.",
    "python": "Data of the user: licence unknown. Fill in what holds for them.",
}
"""What is known of the licence of each data set."""


def preparation(settings: DatasetSettings, modality: str, card: str, dtype: str) -> dict[str, Any]:
    """Return what was done to the raw data of a modality, and what the model does to its input first, as JSON values.

    Args:
        settings: Which data.
        modality: Which of its modalities.
        card: The data card.
        dtype: Of the input.
    """
    words = _of_card(card, modality)
    numbers: dict[str, Any] = {}
    if isinstance(settings, DigitsSettings | AvmnistSettings) and modality == "audio":
        numbers["spectrogram"] = _spectrogram(settings)
    if isinstance(settings, AvmnistSettings) and modality == "image" and settings.source == "raw":
        numbers["stored_as"] = {"offset": 0.5, "range": 2.0, "levels": _BYTES}
    return {
        "before": words or "as the data set gives them",
        **numbers,
        "in_the_model": {"divide_by": _BYTES} if dtype == "uint8" else {},
    }


def _of_card(card: str, modality: str) -> str:
    """Return what a data card says of a modality: the line that begins with its name, and those indented under it."""
    found = re.search(rf"^{re.escape(modality)}: (.*(?:\n  .*)*)", card, re.MULTILINE)
    return re.sub(r"\s+", " ", found[1]).strip().rstrip(".") if found else ""


def _spectrogram(settings: DigitsSettings | AvmnistSettings) -> dict[str, Any]:
    common = {"scale": "10 log10 |S|^2, clipped under its maximum, scaled to [0, 1], then to 256 levels"}
    if isinstance(settings, DigitsSettings):
        return {"window": "Hann", "window_samples": 256, "hop_samples": 160, "bands": 24, "range_db": 40, **common}
    if settings.source == "npy":
        return {}
    return {
        "sample_rate_hz": 8000,
        "n_samples": 7326,
        "window": "Hann",
        "window_samples": 222,
        "hop_samples": 64,
        "padding": "none",
        "range_db": 80,
        **common,
    }

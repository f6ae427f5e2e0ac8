"""Log-power spectrograms of many recordings at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_TINY_POWER = 1e-20


def power_spectrogram(sound: npt.NDArray[np.float32], *, window: int, hop: int) -> npt.NDArray[np.float32]:
    """Return |S|^2 under a Hann window, without padding.

    Args:
        sound: Sounds of equal length [n, samples].
        window: Samples of the window and of the Fourier transform.
        hop: Samples between the starts of two windows.

    Returns:
        float32 [n, window // 2 + 1, frames]: the frequencies from 0 up to half the sampling rate.
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound, window, axis=-1)[..., ::hop, :]
    # The periodic Hann window, the usual one for spectra.
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    spectrum = np.fft.rfft(frames * hann, axis=-1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.ascontiguousarray(np.swapaxes(power, -1, -2), dtype=np.float32)


def to_unit_decibels(power: npt.NDArray[np.float32], *, range_db: float) -> npt.NDArray[np.float32]:
    """Return each power spectrogram [n, ...] in decibels, clipped `range_db` under its maximum, scaled to [0, 1]."""
    decibels = 10.0 * np.log10(np.maximum(power, _TINY_POWER))
    top = decibels.max(axis=tuple(range(1, decibels.ndim)), keepdims=True)
    return np.asarray(np.clip((decibels - top) / range_db + 1.0, 0.0, 1.0), dtype=np.float32)


def to_bytes(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Round values in [0, 1] to the nearest of 256 levels, value / 255."""
    levels: npt.NDArray[np.uint8] = np.rint(unit * 255.0).astype(np.uint8)
    return levels

"""Spectrograms of known sounds."""

from __future__ import annotations

import numpy as np

from mfas_optuna.datasets import spectrogram


def test_shape_and_frequency_of_a_tone() -> None:
    time_s = np.arange(7326) / 8000
    tones = np.stack([np.sin(2 * np.pi * hertz * time_s) for hertz in (500, 3000)]).astype(np.float32)
    power = spectrogram.power_spectrogram(tones, window=222, hop=64)
    assert power.shape == (2, 112, 112)
    peaks_hz = power.mean(axis=2).argmax(axis=1) * 8000 / 222
    np.testing.assert_allclose(peaks_hz, [500, 3000], atol=8000 / 222)


def test_against_one_frame_at_a_time() -> None:
    sound = np.random.default_rng(0).standard_normal((1, 100)).astype(np.float32)
    power = spectrogram.power_spectrogram(sound, window=16, hop=5)
    hann = np.hanning(17)[:16]
    for frame in range(power.shape[2]):
        expected = np.abs(np.fft.fft(sound[0, 5 * frame : 5 * frame + 16] * hann))[:9] ** 2
        np.testing.assert_allclose(power[0, :, frame], expected, rtol=1e-3, atol=1e-4)
    assert power.shape[2] == (100 - 16) // 5 + 1


def test_decibels_are_clipped_under_each_maximum() -> None:
    power = np.array([[1.0, 1e-1, 1e-4, 0.0], [1e4, 1e3, 1.0, 1e-9]], dtype=np.float32)
    unit = spectrogram.to_unit_decibels(power, range_db=40)
    np.testing.assert_allclose(unit, [[1, 0.75, 0, 0], [1, 0.75, 0, 0]], atol=1e-6)
    assert spectrogram.to_bytes(unit).tolist() == [[255, 191, 0, 0]] * 2


def test_silence_is_finite() -> None:
    unit = spectrogram.to_unit_decibels(np.zeros((1, 4, 4), np.float32), range_db=80)
    assert np.isfinite(unit).all()

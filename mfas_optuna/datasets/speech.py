"""Spoken digits from nothing but numpy: formant synthesis in noise.

Each digit is a short series of key frames (three formants, voicing, frication), joined by straight lines in time. A
voiced sound is the sum over its formants of a damped sinusoid that starts anew at each glottal pulse; a fricative is a
sinusoid whose frequency and level wander quickly about its centre. Every utterance has its own pitch, vocal tract
length, speed, level, start and small errors in each key frame. Nobody would take it for a person, but what has to be
told apart is real: moving formants.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 8000
N_SAMPLES = 4000

_LONGEST_S = 0.40
_FORMANT_BANDWIDTHS = (80.0, 110.0, 170.0)
_FORMANT_LEVELS = (1.0, 0.65, 0.35)


class _Key(NamedTuple):
    """The sound at one moment: time as a fraction of the utterance, frequencies in Hz, levels from 0 to 1."""

    time: float
    formant1: float
    formant2: float
    formant3: float
    voicing: float
    frication: float
    frication_centre: float


# Vowel targets are round figures for an adult voice; stops and fricatives are reduced to bursts and bands.
_DIGITS: tuple[tuple[_Key, ...], ...] = (
    # zero: z, ih, r, oh
    (
        _Key(0.0, 280, 1700, 2500, 0.3, 0.6, 3400),
        _Key(0.2, 360, 1800, 2500, 0.9, 0.2, 3400),
        _Key(0.45, 380, 1300, 1700, 0.9, 0.0, 3000),
        _Key(0.7, 480, 950, 2350, 1.0, 0.0, 3000),
        _Key(1.0, 360, 800, 2300, 0.2, 0.0, 3000),
    ),
    # one: w, ah, n
    (
        _Key(0.0, 310, 650, 2200, 0.5, 0.0, 3000),
        _Key(0.4, 680, 1150, 2400, 1.0, 0.0, 3000),
        _Key(0.7, 550, 1300, 2450, 0.8, 0.0, 3000),
        _Key(1.0, 260, 1450, 2500, 0.3, 0.0, 3000),
    ),
    # two: t, oo
    (
        _Key(0.0, 300, 1800, 2600, 0.0, 0.9, 3100),
        _Key(0.15, 310, 1500, 2400, 0.7, 0.3, 3000),
        _Key(0.6, 320, 1000, 2250, 1.0, 0.0, 3000),
        _Key(1.0, 310, 850, 2200, 0.3, 0.0, 3000),
    ),
    # three: th, r, ee
    (
        _Key(0.0, 300, 1300, 2300, 0.0, 0.35, 2300),
        _Key(0.2, 330, 1250, 1650, 0.7, 0.1, 2300),
        _Key(0.5, 300, 2150, 2850, 1.0, 0.0, 3000),
        _Key(1.0, 280, 2300, 3000, 0.4, 0.0, 3000),
    ),
    # four: f, aw, r
    (
        _Key(0.0, 400, 1000, 2300, 0.0, 0.4, 1700),
        _Key(0.25, 560, 850, 2400, 0.9, 0.1, 1700),
        _Key(0.65, 540, 880, 2200, 1.0, 0.0, 3000),
        _Key(1.0, 440, 1250, 1700, 0.3, 0.0, 3000),
    ),
    # five: f, ah-ee, v
    (
        _Key(0.0, 450, 1100, 2300, 0.0, 0.4, 1700),
        _Key(0.25, 740, 1150, 2450, 1.0, 0.1, 1700),
        _Key(0.65, 500, 1850, 2550, 1.0, 0.0, 3000),
        _Key(1.0, 300, 1500, 2400, 0.3, 0.25, 1900),
    ),
    # six: s, ih, k, s
    (
        _Key(0.0, 300, 1700, 2500, 0.0, 0.9, 3600),
        _Key(0.25, 390, 1950, 2600, 0.8, 0.3, 3500),
        _Key(0.45, 400, 1950, 2600, 0.9, 0.0, 3500),
        _Key(0.6, 350, 1900, 2550, 0.0, 0.0, 2300),
        _Key(0.75, 350, 1900, 2550, 0.0, 0.8, 3500),
        _Key(1.0, 350, 1900, 2550, 0.0, 0.6, 3600),
    ),
    # seven: s, eh, v, n
    (
        _Key(0.0, 300, 1600, 2500, 0.0, 0.9, 3600),
        _Key(0.25, 520, 1750, 2500, 0.8, 0.3, 3500),
        _Key(0.45, 550, 1750, 2500, 1.0, 0.0, 3000),
        _Key(0.65, 320, 1200, 2300, 0.6, 0.15, 2000),
        _Key(0.8, 420, 1400, 2450, 0.8, 0.0, 3000),
        _Key(1.0, 260, 1450, 2500, 0.3, 0.0, 3000),
    ),
    # eight: eh-ee, t
    (
        _Key(0.0, 470, 1900, 2550, 0.9, 0.0, 3000),
        _Key(0.45, 350, 2200, 2800, 1.0, 0.0, 3000),
        _Key(0.65, 320, 2150, 2800, 0.2, 0.0, 3000),
        _Key(0.8, 320, 2000, 2700, 0.0, 0.0, 3000),
        _Key(0.88, 320, 2000, 2700, 0.0, 0.8, 3100),
        _Key(1.0, 320, 2000, 2700, 0.0, 0.2, 3100),
    ),
    # nine: n, ah-ee, n
    (
        _Key(0.0, 260, 1450, 2500, 0.5, 0.0, 3000),
        _Key(0.3, 730, 1200, 2450, 1.0, 0.0, 3000),
        _Key(0.65, 480, 1850, 2550, 1.0, 0.0, 3000),
        _Key(1.0, 260, 1500, 2500, 0.3, 0.0, 3000),
    ),
)


def utter(digits: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Speak one digit after another, each into a recording of its own.

    Args:
        digits: Which digits, 0 to 9, [n].
        rng: Draws everything that varies.

    Returns:
        Clean speech, float32 [n, N_SAMPLES] at SAMPLE_RATE, silent before and after the utterance.
    """
    n = len(digits)
    duration_s = rng.uniform(0.62, 1.0, (n, 1)) * _LONGEST_S
    start_s = rng.uniform(0.0, 1.0, (n, 1)) * (N_SAMPLES / SAMPLE_RATE - duration_s)
    time_s = np.arange(N_SAMPLES) / SAMPLE_RATE
    position = ((time_s - start_s) / duration_s).astype(np.float32)
    speaking = (position >= 0) & (position <= 1)

    tracks = _tracks(digits, position, rng)
    tract = rng.uniform(0.86, 1.18, (n, 1)).astype(np.float32)
    voice = _voice(tracks[:, 0:3] * tract[:, None], position, rng) * tracks[:, 3]
    sound = voice + 0.5 * _frication(tracks[:, 5] * tract, rng) * tracks[:, 4]
    level = 10.0 ** (rng.uniform(-6.0, 6.0, (n, 1)) / 20.0)
    return np.asarray(sound * speaking * level, dtype=np.float32)


def add_noise(speech: npt.NDArray[np.float32], snr_db: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Add noise of a random colour, white to somewhat darker than pink, with a slow swell, to each recording.

    The ratio is that of the powers over the whole recording, dB.
    """
    n, length = speech.shape
    spectrum = np.fft.rfft(rng.standard_normal((n, length), dtype=np.float32))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 50.0)
    colour = rng.uniform(0.0, 0.6, (n, 1))
    noise = np.fft.irfft(spectrum * (frequency / 1000.0) ** -colour, length)
    swings = rng.uniform(1.0, 6.0, (n, 1)) * np.arange(length) / SAMPLE_RATE + rng.random((n, 1))
    swell = rng.uniform(0.0, 0.7, (n, 1)) * np.sin(2 * np.pi * swings)
    noise *= 1.0 + swell
    wanted = np.square(speech).mean(axis=1) * 10.0 ** (-snr_db / 10.0)
    noise *= np.sqrt(wanted / np.square(noise).mean(axis=1))[:, None]
    return np.asarray(speech + noise, dtype=np.float32)


def _tracks(
    digits: npt.NDArray[np.int64], position: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return the key frames' six values at each sample, [n, 6, N_SAMPLES]."""
    tracks = np.empty((len(digits), 6, position.shape[1]), dtype=np.float32)
    for row, digit in enumerate(digits):
        keys = np.array(_DIGITS[digit])
        times, values = keys[:, 0], keys[:, 1:]
        values[:, :3] *= rng.normal(1.0, 0.05, values[:, :3].shape)
        values[:, 3:5] *= rng.uniform(0.7, 1.3, values[:, 3:5].shape)
        values[:, 5] *= rng.normal(1.0, 0.04)
        for column in range(6):
            tracks[row, column] = np.interp(position[row], times, values[:, column])
    return tracks


def _voice(
    formants: npt.NDArray[np.float32], position: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return voiced sound, [n, N_SAMPLES], for formants [n, 3, N_SAMPLES]."""
    n = len(formants)
    pitch = np.exp(rng.uniform(np.log(85.0), np.log(240.0), (n, 1)))
    glide = rng.uniform(-0.25, 0.1, (n, 1))
    pitch_track = pitch * (1.0 + glide * np.clip(position, 0.0, 1.0))
    phase = np.cumsum(pitch_track / SAMPLE_RATE, axis=1)
    since_pulse_s = ((phase % 1.0) / pitch_track).astype(np.float32)
    sound = np.zeros_like(since_pulse_s)
    for index, (bandwidth, level) in enumerate(zip(_FORMANT_BANDWIDTHS, _FORMANT_LEVELS, strict=True)):
        decay = np.exp(np.float32(-np.pi * bandwidth) * since_pulse_s)
        sound += np.float32(level) * decay * np.sin(np.float32(2 * np.pi) * formants[:, index] * since_pulse_s)
    return sound


def _frication(centre: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return noise about the centre frequency [n, N_SAMPLES], of power near 1."""
    wander = rng.standard_normal(centre.shape, dtype=np.float32)
    phase = np.cumsum((centre + 1200.0 * wander) * np.float32(2 * np.pi / SAMPLE_RATE), axis=1)
    return np.asarray(np.sqrt(2.0) * np.sin(phase), dtype=np.float32)

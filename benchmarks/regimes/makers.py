"""Draws of a regime from a pool: seeded, each split from the same split of the pool.

Equal regime, pool and draw give equal rows: a smaller training split is the beginning of a larger one, and validation
and test are the same for all sizes. `distractors` has the pairs of `independent`.

Shapes: N rows, F columns of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.pools import Floats, Ints, Pool, PoolName, PoolSplit
from mfas_optuna.search.proposal import seed_from

Regime = Literal["independent", "interaction", "distractors", "three"]
REGIMES: tuple[Regime, ...] = get_args(Regime)

POOLS: Mapping[Regime, PoolName] = {
    "independent": "half",
    "interaction": "digit",
    "distractors": "half",
    "three": "digit",
}
"""The pool that a regime is drawn from."""

N_IRRELEVANT, N_NOISY = 2, 2
"""Distractor layers of each kind and modality; with one redundant layer that makes five."""
IRRELEVANT_COLUMNS = 64
"""Width of an irrelevant layer: Gaussian noise of deviation 1."""
REDUNDANT_NOISE = 0.5
"""Deviation of the noise on a redundant layer: another layer's columns, of deviation about 1, mixed at random."""
NOISY_NOISE = 3.0
"""Deviation of the noise on a noisy layer: a true layer, whose columns have deviation 1."""
HINT_NOISE = 4.0
"""Deviation of the noise on the hint of `three`, whose columns have deviation 1 before. Calibrated once: a linear probe
of all its layers then predicts 37 % with 2,000 pairs (67 % at a deviation of 1, 46 % at 3, 27 % at 6)."""
N_CLASSES = 10
HINT = "hint"

Layers = dict[str, dict[str, Floats]]


@dataclass(frozen=True)
class Drawn:
    """One split of a draw.

    Attributes:
        layers: float32 (N, F) of each layer, by modality and layer.
        labels: The target, 0 to 9, (N,).
    """

    layers: Layers
    labels: Ints


def draw_split(regime: Regime, pool: Pool, split: str, n: int, draw: int) -> Drawn:
    """Return the first rows of one split of a draw.

    Args:
        regime: Which.
        pool: The pool that `POOLS` names.
        split: Of draw and pool alike.
        n: Rows.
        draw: Its number, the seed.

    Raises:
        RegimeError: The pool's split has fewer rows.
    """
    source = pool.splits[split]
    if n > len(source.digits):
        raise RegimeError(
            f"{regime}: expected at most {len(source.digits)} pairs for {split}, which its pool has, found {n}. Ask "
            "for fewer."
        )
    if regime in ("independent", "distractors"):
        drawn = _independent(source, n, _generator("pairs", split, draw))
        return _with_distractors(drawn, split, draw) if regime == "distractors" else drawn
    rng = _generator(regime, split, draw)
    images, audios = (rng.permutation(len(source.digits))[:n] for _ in range(2))
    labels = (source.digits[images] + source.digits[audios]) % N_CLASSES
    layers = {"audio": _taken(source, "audio", audios), "image": _taken(source, "image", images)}
    if regime == "three":
        hints = _others_of_digit(source.digits, labels, images, rng.random(len(source.digits))[:n])
        clean = _taken(source, "image", hints)
        layers[HINT] = {
            name: rows_NF + HINT_NOISE * _noise("hint", name, split, draw, shape=rows_NF.shape)
            for name, rows_NF in clean.items()
        }
    return Drawn(layers, labels)


def _independent(source: PoolSplit, n: int, rng: np.random.Generator) -> Drawn:
    """Pair images with audio of the same digit."""
    images = rng.permutation(len(source.digits))
    audios = np.empty_like(images)
    for digit in range(N_CLASSES):
        of_digit = np.flatnonzero(source.digits[images] == digit)
        audios[of_digit] = rng.permutation(images[of_digit])
    images, audios = images[:n], audios[:n]
    layers = {"audio": _taken(source, "audio", audios), "image": _taken(source, "image", images)}
    return Drawn(layers, source.digits[images])


def _with_distractors(drawn: Drawn, split: str, draw: int) -> Drawn:
    """Add five layers to each modality: two irrelevant, one redundant, two noisy."""
    layers: Layers = {}
    for modality, true_layers in drawn.layers.items():
        # Which layers, and how they are mixed, is the same for all splits.
        rng = _generator("distractors", modality, draw)
        names = list(true_layers)
        added: dict[str, Floats] = {}
        for number in range(1, N_IRRELEVANT + 1):
            shape = (len(drawn.labels), IRRELEVANT_COLUMNS)
            added[f"irrelevant{number}"] = _noise("irrelevant", modality, number, split, draw, shape=shape)
        mixed_NF = true_layers[names[rng.integers(len(names))]]
        n_columns = mixed_NF.shape[1]
        mixing_FF = (rng.standard_normal((n_columns, n_columns)) / n_columns**0.5).astype(np.float32)
        noise_NF = _noise("redundant", modality, split, draw, shape=mixed_NF.shape)
        added["redundant"] = mixed_NF @ mixing_FF + REDUNDANT_NOISE * noise_NF
        for number, name in enumerate(rng.permutation(names)[:N_NOISY], start=1):
            clean_NF = true_layers[str(name)]
            noise_NF = _noise("noisy", modality, number, split, draw, shape=clean_NF.shape)
            added[f"noisy{number}"] = clean_NF + NOISY_NOISE * noise_NF
        layers[modality] = {**true_layers, **added}
    return Drawn(layers, drawn.labels)


def _others_of_digit(digits: Ints, wanted: Ints, taken: Ints, chance: NDArray[np.float64]) -> Ints:
    """Return for each wanted digit a row of that digit, never the row that is taken already.

    Args:
        digits: Of all rows.
        wanted: (N,).
        taken: Rows, (N,).
        chance: Where among the digit's rows, uniform from 0 to 1, (N,).
    """
    rows = np.empty_like(wanted)
    for digit in range(N_CLASSES):
        at = np.flatnonzero(wanted == digit)
        of_digit = np.flatnonzero(digits == digit)
        position = (chance[at] * len(of_digit)).astype(np.int64)
        is_taken = of_digit[position] == taken[at]
        rows[at] = of_digit[(position + is_taken) % len(of_digit)]
    return rows


def _taken(source: PoolSplit, modality: str, rows: Ints) -> dict[str, Floats]:
    return {name: values_NF[rows] for name, values_NF in source.features[modality].items()}


def _noise(*key: int | str, shape: tuple[int, ...]) -> Floats:
    return _generator(*key).standard_normal(shape, dtype=np.float32)


def _generator(*key: int | str) -> np.random.Generator:
    return np.random.default_rng(seed_from("regimes", *key))

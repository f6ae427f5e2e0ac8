"""Images made harder: most of their energy removed by principal component analysis (paper, section 4, AV-MNIST)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Degradation:
    """A projection onto principal components of the training images.

    Attributes:
        mean: Mean training image, flat [d].
        components: Orthonormal leading components [k, d].
        variance_kept: Fraction of the training images' variance that the components hold.
        keep: Keep the components (`leading`) or what is left without them (`residual`).
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    variance_kept: float
    keep: Literal["leading", "residual"]

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return degraded images [n, d]; values may lie outside of the range of the originals."""
        centred = images - self.mean
        projected = (centred @ self.components.T) @ self.components
        degraded = self.mean + (projected if self.keep == "leading" else centred - projected)
        return degraded.astype(np.float32, copy=False)


def fit(
    images: npt.NDArray[np.float32],
    *,
    n_components: int | None = None,
    energy: float | None = None,
    keep: Literal["leading", "residual"] = "leading",
) -> Degradation:
    """Find the principal components of training images.

    Args:
        images: Flat training images [n, d].
        n_components: How many leading components; or
        energy: the fraction of the variance that they must hold at least.
        keep: What the degraded images keep.
    """
    mean = images.mean(axis=0, dtype=np.float64)
    centred = images - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(images)
    variances, vectors = np.linalg.eigh(covariance)
    fractions = np.cumsum(np.maximum(variances[::-1], 0.0)) / np.maximum(variances, 0.0).sum()
    if n_components is None:
        n_components = int(np.searchsorted(fractions, energy or 1.0)) + 1
    n_components = min(n_components, images.shape[1])
    components = vectors[:, ::-1][:, :n_components].T.astype(np.float32)
    return Degradation(mean.astype(np.float32), components, float(fractions[n_components - 1]), keep)

"""Which features of two modalities are best fused, and how: a search on synthetic data, with NumPy alone."""

from __future__ import annotations

import numpy as np
import optuna
import optunahub
from numpy.typing import NDArray

N_TRAIN, N_ROWS, WIDTH = 400, 800, 32
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}

# Two causes are heard and two are seen, each in a feature of its own; each modality has a third feature without any.
rng = np.random.default_rng(0)
heard_1, heard_2, seen_1, seen_2, nothing = rng.normal(size=(5, N_ROWS))
target = heard_1 * seen_1 + heard_2 * seen_2


def observe(cause: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 4 noisy views of a cause of shape (rows,), as (rows, 4)."""
    return np.outer(cause, rng.normal(size=4)) + 0.1 * rng.normal(size=(N_ROWS, 4))


features = {
    "audio": {"conv1": observe(nothing), "conv2": observe(heard_1), "conv3": observe(heard_2)},
    "image": {"conv1": observe(seen_2), "conv2": observe(nothing), "conv3": observe(seen_1)},
}

mfas = optunahub.load_module(package="samplers/mfas")
space = mfas.SearchSpace(
    modalities={modality: list(choices) for modality, choices in features.items()},
    activations=list(ACTIVATIONS),
    max_depth=3,
)


def objective(trial: optuna.Trial) -> float:
    """Fuse the chosen features in layers with random weights, fit a linear head, and return R² on the other rows."""
    architecture = space.suggest(trial)
    weights = np.random.default_rng(1)
    hidden = np.empty((N_ROWS, 0))
    for layer in architecture.layers:
        chosen = [list(features[name].values())[index] for name, index in zip(features, layer.features, strict=True)]
        inputs = np.hstack([*chosen, hidden])
        activation = list(ACTIVATIONS.values())[layer.activation]
        hidden = activation(inputs @ weights.normal(size=(inputs.shape[1], WIDTH)) / np.sqrt(inputs.shape[1]))
    rows = np.hstack([hidden, np.ones((N_ROWS, 1))])
    head, *_ = np.linalg.lstsq(rows[:N_TRAIN], target[:N_TRAIN], rcond=None)
    errors = target[N_TRAIN:] - rows[N_TRAIN:] @ head
    return float(1 - errors.var() / target[N_TRAIN:].var())


if __name__ == "__main__":
    sampler = mfas.MFASSampler(space, n_iterations=3, samples_per_step=12, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective)
    print(f"{len(study.trials)} of {len(space)} networks; the best scores {study.best_value:.3f}:")
    for number, layer in enumerate(space.from_parameters(study.best_params).layers, start=1):
        audio, image = (names[index] for names, index in zip(space.modalities.values(), layer.features, strict=True))
        print(f"layer {number}: audio {audio}, image {image}, {space.activations[layer.activation]}")

"""Build avmnist at given signal-to-noise ratios and train both backbones, to choose the recipe's default once.

    python benchmarks/calibrate_avmnist.py --data-root ../shared/data --home /tmp/avmnist --snr-db -12 -13

The paper's unimodal test accuracies are 66.06 % (LeNet-5 on audio) and 74.52 % (LeNet-3 on images). Built data stay in
the home folder and are used again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mfas_optuna.backbones import build_backbone, to_input
from mfas_optuna.datasets import DataRequest, Dataset, load_dataset
from mfas_optuna.spec import AvmnistSettings, LeNetSettings, UnimodalTraining
from mfas_optuna.training.unimodal import train_unimodal

_PAPER = {"audio": 0.6606, "image": 0.7452}
_BATCH = 250


def log_probabilities(model: torch.nn.Module, dataset: Dataset, modality: str) -> torch.Tensor:
    """Return the network's log-probabilities (n, classes) on the test split."""
    inputs = dataset.splits["test"].inputs[modality]
    with torch.inference_mode():
        parts = [
            model(to_input(inputs[row : row + _BATCH], torch.device("cpu"))).log_softmax(dim=1)
            for row in range(0, len(inputs), _BATCH)
        ]
    return torch.cat(parts)


def measure(settings: AvmnistSettings, backbones: dict[str, LeNetSettings], data_root: Path, home: Path) -> None:
    """Print the time of each stage and the scores."""
    start = time.perf_counter()
    dataset = load_dataset(DataRequest(settings, home=home, data_root=data_root))
    print(f"{settings.snr_db:g} dB: data in {time.perf_counter() - start:.0f} s", flush=True)
    total: torch.Tensor | float = 0.0
    for modality, lenet in backbones.items():
        start = time.perf_counter()
        training = lenet.training
        generator = torch.Generator().manual_seed(training.seed)
        model = build_backbone(
            lenet,
            sample_shape=dataset.splits["train"].inputs[modality].shape[1:],
            n_outputs=dataset.target.n_outputs,
            generator=generator,
            folder=Path(),
        )
        result = train_unimodal(model, dataset, modality, training, device=torch.device("cpu"))
        print(
            f"{settings.snr_db:g} dB, {modality}: channels {lenet.channels}, {training.epochs} epochs, batch "
            f"{training.batch_size}, lr {training.learning_rate:g}: validation {result.validation_score:.2%}, "
            f"test {result.test_score:.2%} (paper {_PAPER[modality]:.2%}), {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        total = total + log_probabilities(model, dataset, modality)
    if isinstance(total, torch.Tensor) and len(backbones) > 1:
        labels = torch.from_numpy(dataset.splits["test"].labels)
        late = float((total.argmax(dim=1) == labels).float().mean())
        print(f"{settings.snr_db:g} dB, late fusion: test {late:.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = AvmnistSettings(name="avmnist")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True, help="folder that built data are kept in")
    parser.add_argument("--snr-db", type=float, nargs="+", default=[defaults.snr_db])
    parser.add_argument("--components", type=int, default=defaults.pca_components)
    parser.add_argument("--n-train", type=int, default=defaults.n_train)
    parser.add_argument("--modalities", nargs="+", default=["audio", "image"], choices=["audio", "image"])
    parser.add_argument("--audio-channels", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--image-channels", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--audio-epochs", type=int, default=5)
    parser.add_argument("--image-epochs", type=int, default=3)
    parser.add_argument("--audio-learning-rate", type=float, default=2e-3)
    parser.add_argument("--image-learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    backbones = {
        modality: LeNetSettings(
            kind="lenet",
            channels=channels,
            features=["conv1"],
            training=UnimodalTraining(epochs=epochs, batch_size=given.batch_size, learning_rate=rate, seed=given.seed),
        )
        for modality, channels, epochs, rate in (
            ("audio", given.audio_channels, given.audio_epochs, given.audio_learning_rate),
            ("image", given.image_channels, given.image_epochs, given.image_learning_rate),
        )
        if modality in given.modalities
    }
    for snr_db in given.snr_db:
        settings = AvmnistSettings(
            name="avmnist", n_train=given.n_train, pca_components=given.components, snr_db=snr_db
        )
        measure(settings, backbones, given.data_root, given.home)


if __name__ == "__main__":
    main()

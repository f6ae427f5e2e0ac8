"""Measure the digits study's modalities alone and by late fusion, for given signal-to-noise ratios and components.

python benchmarks/calibrate_digits.py --snr-db -6 -9 --components 4 5
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch

from mfas_optuna.backbones import build_backbone, to_input
from mfas_optuna.datasets import DataRequest, load_dataset
from mfas_optuna.spec import DigitsSettings, LeNetSettings, UnimodalTraining
from mfas_optuna.training.unimodal import train_unimodal


def measure(settings: DigitsSettings, channels: dict[str, list[int]], training: UnimodalTraining) -> None:
    """Print the time of each stage and the test scores."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        dataset = load_dataset(DataRequest(settings, home=Path(home), data_root=None))
        built = time.perf_counter()
        scores = {}
        log_probabilities = torch.zeros(1)
        for modality in dataset.modalities:
            lenet = LeNetSettings(kind="lenet", channels=channels[modality], features=["conv1"], training=training)
            generator = torch.Generator().manual_seed(training.seed)
            model = build_backbone(
                lenet,
                sample_shape=dataset.splits["train"].inputs[modality].shape[1:],
                n_outputs=dataset.target.n_outputs,
                generator=generator,
                folder=Path(),
            )
            result = train_unimodal(model, dataset, modality, training, device=torch.device("cpu"))
            scores[modality] = result.test_score
            with torch.inference_mode():
                output = model(to_input(dataset.splits["test"].inputs[modality], torch.device("cpu")))
            log_probabilities = log_probabilities + output.log_softmax(dim=1)
        labels = torch.from_numpy(dataset.splits["test"].labels)
        late = float((log_probabilities.argmax(dim=1) == labels).float().mean())
    single = ", ".join(f"{modality} {score:.1%}" for modality, score in scores.items())
    print(
        f"seed {settings.seed}, {settings.snr_db:g} dB, {settings.pca_components} components: {single}, "
        f"late fusion {late:.1%} (gain {late - max(scores.values()):+.1%}); "
        f"build {built - start:.1f} s, training {time.perf_counter() - built:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = DigitsSettings(name="digits")
    parser.add_argument("--snr-db", type=float, nargs="+", default=[defaults.snr_db])
    parser.add_argument("--components", type=int, nargs="+", default=[defaults.pca_components])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-train", type=int, default=defaults.n_train)
    parser.add_argument("--audio-channels", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--image-channels", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    channels = {"audio": given.audio_channels, "image": given.image_channels}
    for snr_db, components, seed in itertools.product(given.snr_db, given.components, given.seeds):
        settings = DigitsSettings(
            name="digits", n_train=given.n_train, pca_components=components, snr_db=snr_db, seed=seed
        )
        training = UnimodalTraining(
            epochs=given.epochs, batch_size=given.batch_size, learning_rate=given.learning_rate, seed=seed
        )
        measure(settings, channels, training)


if __name__ == "__main__":
    main()

"""Two processes on gloo train backbones and head together: what they come to is what one process comes to."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mfas_optuna.backbones.taps import Tap
from mfas_optuna.errors import DeviceError
from mfas_optuna.features.build import Source
from mfas_optuna.spec import AugmentationSettings
from mfas_optuna.spec.final import UnfrozenSettings
from mfas_optuna.training.fused import FusedModel
from mfas_optuna.training.processes import Processes
from mfas_optuna.training.unfrozen import train_unfrozen
from tests.unit.training.test_fused import make_dataset, make_head, make_layout, make_model

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def accelerate() -> None:
    if find_spec("accelerate") is None:
        if os.environ.get("CI"):
            pytest.fail("accelerate is not installed")
        pytest.skip("accelerate is not installed; pip install -c constraints.txt -e '.[dev]'")


class Plain(nn.Module):
    """A network without batch normalisation, which would see a share of a batch alone; one layer is never used."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU())
        self.unused = nn.Linear(2, 2)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv2(self.conv1(x))
        return result


def plain_model() -> FusedModel:
    dataset = make_dataset()
    taps = [Tap("first", "conv1"), Tap("second", "conv2")]
    sources = {name: Source(Plain(number), taps) for number, name in enumerate(dataset.modalities)}
    layout, generator = make_layout(dataset), torch.Generator().manual_seed(0)
    return FusedModel(sources, layout, make_head(dataset, layout), n_outputs=4, generator=generator)


def train(kind: str, batch_size: int, folder: Path, stop_at: int | None = None) -> dict[str, Any]:
    """Train in this process, write its weights, and return what else it came to."""
    told: list[int] = []

    def progress(_: str, done: int, total: int) -> None:
        told.append(done)
        if done == stop_at:
            os._exit(9)

    folder.mkdir(exist_ok=True)
    dataset = make_dataset()
    result = train_unfrozen(
        plain_model() if kind == "plain" else make_model(dataset, outputs=["values"], dropout=0.3),
        dataset,
        UnfrozenSettings(
            epochs=4, batch_size=batch_size, learning_rate=1e-2, backbone_learning_rate=1e-2, weight_decay=0.01
        ),
        device=CPU,
        seed=3,
        is_balanced=True,
        augmentation=AugmentationSettings(shift=1),
        checkpoint=folder / "checkpoint",
        progress=progress,
    )
    save_file(result.state, folder / f"{os.environ.get('RANK', '0')}.safetensors")
    return {"scores": result.epoch_scores, "best_epoch": result.best_epoch, "told": told}


_SCRIPT = """
import json, sys, torch
from pathlib import Path
from mfas_optuna.training import unfrozen
from tests.integration.test_unfrozen_processes import train
unfrozen.CHECKPOINT_S, unfrozen.WORK_FOR_WRITING, unfrozen._STEPS_BETWEEN_NEWS = 0.0, 0, 1
jobs = json.loads(sys.argv[1])
print(json.dumps([train(kind, size, Path(folder), stop_at) for kind, size, folder, stop_at in jobs]))
torch.distributed.destroy_process_group()
"""


Job = tuple[str, int, str, int | None]


def in_two_processes(*jobs: Job) -> list[list[dict[str, Any]]]:
    """Return what each process came to in each job; nothing where they were stopped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {
            **os.environ,
            **{name: str(value) for name, value in names.items()},
            "MASTER_ADDR": "127.0.0.1",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, json.dumps(jobs)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if jobs[0][3] is not None:
        assert processes[0].returncode == 9
        assert processes[1].returncode != 0  # It does not wait for the other for ever.
        return []
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error for _, error in outputs)
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(scope="module")
def pair(accelerate: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    """What two processes come to, one job after the other, and the folder of their weights."""
    folder = tmp_path_factory.mktemp("pair")
    jobs: list[Job] = [(kind, size, str(folder / f"{kind}-{size}"), None) for kind, size in JOBS]
    return folder, in_two_processes(*jobs)


JOBS = [("plain", 21), ("plain", 17), ("lenets", 48)]


@pytest.mark.parametrize("job", [0, 1])
def test_two_processes_come_to_what_one_does(
    job: int, pair: tuple[Path, list[list[dict[str, Any]]]], tmp_path: Path
) -> None:
    """Odd batches, the last one of 9 rows, or of 2, which are not shared; classes weigh unequally."""
    kind, batch_size = JOBS[job]
    folder, (first, second) = pair
    one = train(kind, batch_size, tmp_path / "one")
    assert one["best_epoch"] > 0
    assert first[job]["scores"] == pytest.approx(one["scores"], abs=1 / 90 + 1e-9)  # A sample may be at a boundary.
    assert first[job]["best_epoch"] == one["best_epoch"]
    assert {**first[job], "told": []} == second[job]
    assert first[job]["told"][-1] == 4 * math.ceil(240 / batch_size)
    files = [folder / f"{kind}-{batch_size}" / f"{rank}.safetensors" for rank in range(2)]
    of_one, of_first, of_second = (load_file(file) for file in (tmp_path / "one" / "0.safetensors", *files))
    assert_same(of_second, of_first)
    before = plain_model().state_dict()
    for name, expected in of_one.items():
        torch.testing.assert_close(of_first[name], expected, rtol=1e-3, atol=1e-4)
        # Weights that nothing depends on are not decayed either.
        assert torch.equal(of_first[name], before[name]) == ("unused" in name or name in ("shift_F", "scale_F"))


def test_two_processes_go_on_where_they_were_stopped(
    pair: tuple[Path, list[list[dict[str, Any]]]], tmp_path: Path
) -> None:
    """With batch normalisation and dropout; both hold the same weights and statistics, bit for bit."""
    folder, whole = pair
    in_two_processes(("lenets", 48, str(tmp_path), 8))  # Within the second of four epochs of 5 batches.
    resumed = in_two_processes(("lenets", 48, str(tmp_path), None))
    assert resumed[0][0]["told"] == list(range(8, 21))
    assert [of[0]["scores"] for of in resumed] == [of[2]["scores"] for of in whole]
    states = [load_file(of / f"{rank}.safetensors") for of in (folder / "lenets-48", tmp_path) for rank in range(2)]
    for state in states[1:]:
        assert_same(state, states[0])


def test_alone_nothing_is_imported_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, rows = Processes(CPU), torch.arange(3)
    processes.add_up([rows])
    processes.copy_first([rows])
    processes.wait()
    assert processes.is_first
    assert processes.share(rows).tolist() == processes.part(rows).tolist() == [0, 1, 2]


def test_several_without_accelerate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setitem(sys.modules, "accelerate.utils", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match=r"WORLD_SIZE is 2: .*mfas-optuna\[distributed\]"):
        Processes(CPU)

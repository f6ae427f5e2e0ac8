"""The benchmarks run, at sizes that say nothing, and what they compare is the same thing."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks import ask, database_load, group, reference_procedure, report, training, whole_search
from benchmarks.__main__ import run
from benchmarks.shapes import Shapes, avmnist, avmnist_backbones, mmimdb, ntu
from benchmarks.timing import medians_in_turn
from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.features.extract import extract
from mfas_optuna.spec import find_study, load_spec

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.ispkg]
)
def test_every_benchmark_can_be_imported_and_run_as_a_command(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    if name not in ("report", "shapes", "timing"):
        assert callable(module.main)


@pytest.mark.parametrize(("shapes", "size"), [(mmimdb(), 110_592), (ntu(), 5_308_416)])
def test_the_spaces_have_the_papers_sizes(shapes: Shapes, size: int) -> None:
    assert shapes.space.size_at(shapes.space.max_depth) == size


def test_the_reference_procedure_computes_what_the_cached_one_does() -> None:
    shapes = avmnist(1)
    (architecture,) = shapes.draw(3, 1)
    reference = reference_procedure.build(architecture, channels_factor=1, width=4, variant="frozen", device=CPU)
    cached = shapes.network(architecture, 4, 0, CPU)
    cached.head.load_state_dict(reference.head.state_dict())
    cached.layers.load_state_dict(reference.fusion_layers.state_dict())
    samples = reference_procedure.Samples.random(3, seed=0)
    columns = []
    for modality, settings in avmnist_backbones(1).items():
        generator = torch.Generator().manual_seed(0)
        model = build_backbone(
            settings,
            sample_shape=samples.inputs[modality].shape[1:],
            n_outputs=10,
            generator=generator,
            folder=Path(),
        )
        taps = [Tap(name, name) for name in settings.features]
        rows, _ = extract(model, taps, samples.inputs[modality].numpy(), batch_size=3, device=CPU)
        columns.append(torch.from_numpy(rows))
    rows_BF = torch.cat(columns, dim=1)
    reads = shapes.data(1, CPU).reads(architecture, shapes.space)
    features = [torch.cat([rows_BF[:, part] for (part,) in parts], dim=1) for parts in reads]
    inputs, _ = samples.batch(torch.arange(3), CPU, torch.contiguous_format)
    torch.testing.assert_close(reference(inputs), cached(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", reference_procedure.VARIANTS)
def test_the_reference_procedure_trains_the_fusion_layers_alone(variant: str) -> None:
    (architecture,) = avmnist(1).draw(1, 1)
    network = reference_procedure.build(architecture, channels_factor=1, width=4, variant=variant, device=CPU)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    samples = reference_procedure.Samples.random(2, seed=0)
    reference_procedure.train(network, samples, samples, epochs=1, batch_size=2, device=CPU)
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all(name.startswith(("fusion_layers.", "head.")) for name in changed)
    gradients = [
        parameter.grad is not None for parameter in network.backbones["audio"].get_submodule("conv1").parameters()
    ]
    assert all(gradients) == any(gradients) == (variant == "unfrozen")


def test_whole_trainings_are_measured_at_every_depth() -> None:
    setting = training.Setting("tiny", avmnist(1), 4, 4, 1, joint_target=1, sequential_target=1, reference_target=1)
    rows = training.measure(setting, n_rows=16, turns=1, n_networks=3, reference_batches=1)
    assert all(row.microseconds > 0 for row in rows)
    assert {row.depth for row in rows if row.what == training.JOINT} == {None, 1, 2, 3, 4}
    assert all(sum(row.group_sizes) == 3 for row in rows if row.what == training.SEQUENTIAL and row.depth)
    assert {row.what for row in rows if row.what.startswith("reference")} == {
        f"reference, {variant}" for variant in reference_procedure.VARIANTS
    }
    assert len(training.show(rows)) == 3
    without = training.Setting("tiny", mmimdb(), 4, 8, joint_target=1)
    assert len(training.show(training.measure(without, n_rows=16, turns=1, n_networks=2))) == 1


@pytest.mark.parametrize("storage", ask.STORAGES)
def test_asks_are_measured_beside_optunas_samplers(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask.measure(3, n_asks=2, storages=[storage])
    assert {row.role for row in rows} == {
        role for name in ("random", "tpe", "mfas, follower") for role in (name, f"{name}, first ask")
    }
    ask.show(rows)
    assert "mfas, follower" in capsys.readouterr().out


def test_a_stage_knows_its_time_and_memory() -> None:
    code = "import time; block = bytearray(64 * 2**20); time.sleep(0.05); print('done')"
    stage = whole_search.run_stage("x", [sys.executable, "-c", code], {})
    assert stage.seconds >= 0.05
    assert 2**26 < stage.peak_bytes < 2**34
    assert stage.output == "done\n"
    with pytest.raises(SystemExit, match="ended with 3"):
        whole_search.run_stage("x", [sys.executable, "-c", "raise SystemExit(3)"], {})


def test_channels_are_multiplied_in_a_study_file() -> None:
    text = '[backbones.a]\nkind = "lenet"\nchannels = [8, 16]\nfeatures = ["conv1"]\n'
    assert whole_search.multiplied(text, 3) == text.replace("[8, 16]", "[24, 48]")
    with pytest.raises(SystemExit, match="no backbone"):
        whole_search.multiplied("", 3)


def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    whole_search.Home(tmp_path / "new", None)
    whole_search.Home(tmp_path / "new", None)  # Made by the line before.
    (tmp_path / "mfas.db").touch()
    with pytest.raises(SystemExit, match="expected an empty folder"):
        whole_search.Home(tmp_path, None)


def test_what_starts_the_stages_stays_small() -> None:
    code = "import sys, benchmarks.whole_search; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_verdict_says_whether_the_target_holds() -> None:
    assert str(report.Verdict("a against b", 5.0, 6)) == "a against b: 5.00x, target at least 6x: does not hold"
    assert str(report.Verdict("time", 200.0, 300, "at most", " s")) == "time: 200 s, target at most 300 s: holds"


def test_actions_are_timed_in_turn() -> None:
    order: list[str] = []
    seconds = medians_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, turns=2, device=CPU)
    assert order == list("ababab")
    assert all(value >= 0 for value in seconds.values())


def test_without_a_gpu_nothing_is_measured_on_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("training", ["--device", "cuda"]) == []
    assert report.NO_GPU in capsys.readouterr().out


def test_the_costs_of_a_group_are_parts_of_a_whole_search() -> None:
    row = group.measure(n_train=128, n_validation=64, channels=1)
    assert row.n_trials == load_spec(find_study("avmnist")).n_trials_planned()
    parts = (row.ask_s, row.surrogate_s, row.train_s, row.report_s, row.weights_s, row.tell_s)
    assert min(parts) > 0.0
    assert sum(parts) <= row.all_s


def test_the_load_of_a_database_is_counted(postgres: object) -> None:
    """`postgres` says whether there is one to start."""
    loads, n_connections = database_load.measure(n_trials=15, joints=(1, 15), idle_s=0.5)
    one_by_one, together, beat, idle, joined = loads
    assert one_by_one.statements > together.statements > 0
    assert one_by_one.sent > together.sent > 0
    assert beat.transactions == 1
    assert min(idle.statements, idle.received, joined.statements, joined.received) > 0
    assert n_connections == 2

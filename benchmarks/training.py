"""Whole brief trainings: the reference procedure, cached networks one by one, fifteen at once, and in rounds.

    python -m benchmarks.training
    python -m benchmarks.training --settings avmnist-8-w16 ntu-w16 --rows 6400
    python -m benchmarks.training --device cuda

For each depth of the space fifteen different networks are drawn, as a step of the search has them, and trained on the
same random rows for two epochs:

- cached single: one after another, each as a plain module under autograd with a fused AdamW, a gather of rows a batch;
- group of one: one after another by the program's own trainer, whose gradient is written by hand;
- joint: all at once;
- sequential: in rounds of networks that share no weight key (`registry.lineage.rounds`), each round at once.

Targets are meant against cached single; the ratios to groups of one stand beside them.

Everything a training call does is in the figure: building the group, shuffling, training, scoring on a tenth as many
validation rows after each epoch. It is microseconds per network, training row and epoch. Building weighs more on these
3,200 rows than on a study's 50,000. Not in the figure: reading and writing weights, and the search around it.

On AV-MNIST the reference procedure (benchmarks/reference_procedure.py) trains the first of the networks of depth 2 on
two batches for one epoch, in turn with the others. Of MM-IMDB and NTU the package has no backbones, so there is none.

All of one depth in turn, medians, one thread. "All depths" is the mean over the depths. With `--device cuda` the
features are resident on the GPU.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import reference_procedure
from benchmarks.report import NO_GPU, Verdict, gpu_name, machine, table
from benchmarks.shapes import Shapes, avmnist, mmimdb, ntu
from benchmarks.timing import medians_in_turn
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.registry.key import WeightKey
from mfas_optuna.registry.lineage import rounds
from mfas_optuna.space import Architecture
from mfas_optuna.spec import BriefTraining
from mfas_optuna.training.brief import BriefData, BriefResult, Member, train_briefly, train_jointly

N_NETWORKS = 15
EPOCHS = 2
REFERENCE_DEPTH = 2
REFERENCE_BATCHES = 2
SINGLE, ONE, JOINT, SEQUENTIAL = "cached single", "group of one", "joint", "sequential"


@dataclass(frozen=True)
class Setting:
    """What is trained, and what is expected of it on one CPU core.

    Attributes:
        name: Its name on the command line.
        shapes: The features.
        width: Fusion width W.
        batch_size: Rows a step.
        channels_factor: What the avmnist backbones' channels are multiplied by; None without backbones.
        joint_target: How many times faster than cached single fifteen at once should be.
        sequential_target: The same of rounds.
        reference_target: How many times faster than the frozen reference procedure cached single should be.
    """

    name: str
    shapes: Shapes
    width: int
    batch_size: int
    channels_factor: int | None = None
    joint_target: float | None = None
    sequential_target: float | None = None
    reference_target: float | None = None

    def __str__(self) -> str:
        return f"{self.shapes.name}, W {self.width}, batch {self.batch_size}"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        setting: Of which setting.
        depth: Depth of the networks; None for the mean over all.
        what: What was trained, and how.
        microseconds: Per network, training row and epoch.
        group_sizes: Networks of each round, for rounds.
    """

    setting: Setting
    depth: int | None
    what: str
    microseconds: float
    group_sizes: tuple[int, ...] = ()


def settings() -> list[Setting]:
    """Return all settings with their targets."""
    return [
        Setting("avmnist-8-w16", avmnist(1), 16, 64, 1, joint_target=6, sequential_target=2, reference_target=150),
        Setting("avmnist-24-w16", avmnist(3), 16, 64, 3, joint_target=6, sequential_target=2, reference_target=500),
        Setting("avmnist-8-w64", avmnist(1), 64, 128, 1, joint_target=1.8),
        Setting("avmnist-24-w64", avmnist(3), 64, 128, 3, joint_target=1.8),
        Setting("mmimdb-w16", mmimdb(), 16, 64, joint_target=2.5),
        Setting("mmimdb-w64", mmimdb(), 64, 128),
        Setting("ntu-w16", ntu(), 16, 64, joint_target=1.5),
        Setting("ntu-w64", ntu(), 64, 128),
    ]


def layer_keys(network: FusionNetwork) -> list[WeightKey]:
    """Return the weight key of each layer."""
    return [WeightKey(index, columns, rows) for index, (columns, rows) in enumerate(network.layer_sizes)]


def train_plainly(network: FusionNetwork, architecture: Architecture, data: BriefData, setting: Setting) -> float:
    """Train one network as anybody would on cached features, and return its last validation accuracy."""
    reads = data.reads(architecture, setting.shapes.space)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(0)
    accuracy = 0.0

    def inputs(rows_BF: Tensor) -> list[Tensor]:
        return [torch.cat([rows_BF[:, columns] for (columns,) in of_layer], dim=1) for of_layer in reads]

    for _ in range(EPOCHS):
        network.train()
        order_N = torch.randperm(len(data.train_NF), generator=generator).to(data.train_NF.device)
        for indices_B in order_N.split(setting.batch_size):
            rows_BF = data.train_NF.index_select(0, indices_B)
            loss = functional.cross_entropy(network(inputs(rows_BF)), data.train_labels.index_select(0, indices_B))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            predicted_N = network(inputs(data.validation_NF)).argmax(dim=1)
            accuracy = float((predicted_N == data.validation_labels).float().mean())
    return accuracy


def measure(
    setting: Setting,
    *,
    n_rows: int = 3200,
    turns: int = 5,
    device: torch.device | None = None,
    n_networks: int = N_NETWORKS,
    reference_batches: int = REFERENCE_BATCHES,
) -> list[Row]:
    """Time one setting at each depth of its space, and return the figures of each and their means."""
    where = device or torch.device("cpu")
    data = setting.shapes.data(n_rows, where)
    rows: list[Row] = []
    for depth in range(1, setting.shapes.space.max_depth + 1):
        rows += _measure_depth(setting, depth, data, turns, where, n_networks, reference_batches)
    for what in (SINGLE, ONE, SEQUENTIAL, JOINT):
        of_depths = [row for row in rows if row.what == what]
        sizes = tuple(size for row in of_depths for size in row.group_sizes)
        rows.append(Row(setting, None, what, statistics.mean(row.microseconds for row in of_depths), sizes))
    return rows


def _measure_depth(
    setting: Setting,
    depth: int,
    data: BriefData,
    turns: int,
    device: torch.device,
    n_networks: int,
    reference_batches: int,
) -> list[Row]:
    shapes = setting.shapes
    architectures = shapes.draw(depth, n_networks)
    networks = [shapes.network(each, setting.width, seed, device) for seed, each in enumerate(architectures)]
    in_rounds = rounds([layer_keys(network) for network in networks])
    training = BriefTraining(epochs=EPOCHS, batch_size=setting.batch_size)

    def single() -> None:
        for architecture, network in zip(architectures, networks, strict=True):
            train_plainly(network, architecture, data, setting)

    def one_by_one() -> None:
        for architecture, network in zip(architectures, networks, strict=True):
            train_briefly(network, architecture, data, shapes.space, training, generator=torch.Generator())

    def together(slots: Sequence[int]) -> None:
        members = [Member(networks[slot], architectures[slot], torch.Generator()) for slot in slots]
        for outcome in train_jointly(members, data, shapes.space, training, order=torch.Generator()):
            if not isinstance(outcome, BriefResult):
                raise outcome

    def sequential() -> None:
        for slots in in_rounds:
            together(slots)

    # The networks train on from turn to turn, which costs the same as afresh.
    actions: dict[str, Callable[[], object]] = {
        SINGLE: single,
        ONE: one_by_one,
        SEQUENTIAL: sequential,
        JOINT: lambda: together(range(len(networks))),
    }
    divisors = dict.fromkeys(actions, len(networks) * len(data.train_NF) * EPOCHS)
    if depth == REFERENCE_DEPTH and setting.channels_factor is not None and reference_batches > 0:
        for name, action in _reference(setting, architectures[0], reference_batches, device).items():
            actions[name] = action
            divisors[name] = reference_batches * setting.batch_size
    seconds = medians_in_turn(actions, turns=turns, device=device)
    sizes = {SINGLE: (), SEQUENTIAL: tuple(len(slots) for slots in in_rounds), JOINT: (len(networks),)}
    return [Row(setting, depth, what, seconds[what] / divisors[what] * 1e6, sizes.get(what, ())) for what in actions]


def _reference(
    setting: Setting, architecture: Architecture, n_batches: int, device: torch.device
) -> dict[str, Callable[[], float]]:
    assert setting.channels_factor is not None
    made = reference_procedure.actions(
        architecture,
        channels_factor=setting.channels_factor,
        width=setting.width,
        batch_size=setting.batch_size,
        n_batches=n_batches,
        device=device,
    )
    return {f"reference, {variant}": action for variant, action in made.items()}


def show(rows: Sequence[Row], *, with_targets: bool = True) -> list[Verdict]:
    """Print the figures of one setting, the ratios, and these beside their targets.

    Args:
        rows: What `measure` returned.
        with_targets: Whether to judge; the targets are meant for one core of a CPU.
    """
    setting = rows[0].setting
    of = {(row.depth, row.what): row for row in rows}
    depths = sorted({row.depth for row in rows if row.depth is not None})
    print(f"\n{setting}\n")
    cells = []
    for depth in (*depths, None):
        single, one, sequential, joint = (of[depth, what].microseconds for what in (SINGLE, ONE, SEQUENTIAL, JOINT))
        sizes = of[depth, SEQUENTIAL].group_sizes
        cells.append(
            [
                "all depths" if depth is None else str(depth),
                f"{single:.2f}",
                f"{one:.2f}",
                f"{sequential:.2f}",
                f"{joint:.2f}",
                f"{single / sequential:.2f}",
                f"{single / joint:.2f}",
                f"{one / joint:.2f}",
                f"{statistics.mean(sizes):.1f} ({min(sizes)} to {max(sizes)})",
            ]
        )
    headings = [
        *("depth", SINGLE, ONE, SEQUENTIAL, JOINT, "single / sequential", "single / joint", "one / joint"),
        "networks a round",
    ]
    print(table(headings, cells))
    references = [row for row in rows if row.what.startswith("reference")]
    if references:
        cached = of[REFERENCE_DEPTH, SINGLE].microseconds
        print()
        print(
            table(
                [f"reference procedure, depth {REFERENCE_DEPTH}", "us", f"us / {SINGLE}"],
                [
                    [
                        row.what.removeprefix("reference, "),
                        f"{row.microseconds:,.0f}",
                        f"{row.microseconds / cached:,.0f}",
                    ]
                    for row in references
                ],
            )
        )
    else:
        print("Reference procedure: not measured; the package has no backbones of this study.")
    found = verdicts(rows) if with_targets else []
    for verdict in found:
        print(verdict)
    return found


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return the ratios of one setting that have a target."""
    setting = rows[0].setting
    of = {(row.depth, row.what): row.microseconds for row in rows}
    found = []
    frozen = of.get((REFERENCE_DEPTH, "reference, frozen"))
    if setting.reference_target is not None and frozen is not None:
        ratio = frozen / of[REFERENCE_DEPTH, SINGLE]
        found.append(Verdict(f"{setting}: {SINGLE} against frozen reference", ratio, setting.reference_target))
    for what, target in ((SEQUENTIAL, setting.sequential_target), (JOINT, setting.joint_target)):
        if target is not None:
            ratio = of[None, SINGLE] / of[None, what]
            found.append(Verdict(f"{setting}: {what} against {SINGLE}, all depths", ratio, target))
    return found


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print, and return the figures that have a target."""
    by_name = {setting.name: setting for setting in settings()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=list(by_name),
        default=list(by_name),
        metavar="SETTING",
        help=f"of {', '.join(by_name)}",
    )
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--networks", type=int, default=N_NETWORKS)
    parser.add_argument("--reference-batches", type=int, default=REFERENCE_BATCHES, help="0 leaves it out")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args(argv)
    gpu = gpu_name()
    if given.device == "cuda" and gpu is None:
        print(NO_GPU)
        return []
    torch.set_num_threads(1)
    print(
        f"Whole trainings, us a network, row and epoch, on {gpu if given.device == 'cuda' else 'one core'}; {machine()}"
    )
    found: list[Verdict] = []
    for name in given.settings:
        rows = measure(
            by_name[name],
            n_rows=given.rows,
            turns=given.turns,
            device=torch.device(given.device),
            n_networks=given.networks,
            reference_batches=given.reference_batches,
        )
        found += show(rows, with_targets=given.device == "cpu" and given.networks == N_NETWORKS)
    return found


if __name__ == "__main__":
    main()

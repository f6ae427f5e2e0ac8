"""Build, show and replay the tables; see the package's text."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import machine
from benchmarks.table import table as tables
from benchmarks.table.ablations import ABLATIONS
from benchmarks.table.contestants import CONTESTANTS
from benchmarks.table.landscapes import LANDSCAPES
from mfas_optuna import spec as settings
from mfas_optuna.errors import MfasError

DEFAULT_TABLES = ("digits", "avmnist-transfer")
DEFAULT_CONTESTANTS = ("calibrated", "paper", "uniform", "random", "tpe", "tpe-distinct", "nsga2")
CHECKPOINTS = (30, 60, 90, 180)
MAX_TRIALS = {"gp": 60, "tpe-distinct": 90}
"""Contestants that are given fewer trials, because each of their asks takes long."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="train every network of a table")
    make.add_argument("names", nargs="+", choices=LANDSCAPES, metavar="NAME", help=", ".join(LANDSCAPES))
    make.add_argument("--processes", type=int, help="[default: one for each core]")
    make.add_argument("--seeds", type=int, help="trainings of each network [default: as the table's card says]")
    make.add_argument("--out", type=Path, default=tables.FOLDER, help="folder of the tables")
    again = commands.add_parser("replay", help="let samplers search the stored tables, and compare them")
    again.add_argument("names", nargs="*", default=list(DEFAULT_TABLES), metavar="NAME", help="[default: %(default)s]")
    again.add_argument(
        "--contestants",
        nargs="+",
        choices=[*CONTESTANTS, *ABLATIONS],
        default=list(DEFAULT_CONTESTANTS),
        metavar="NAME",
        help=", ".join([*CONTESTANTS, *ABLATIONS]),
    )
    again.add_argument(
        "--seeds", type=int, default=30, help="paired searches of each contestant [default: %(default)s]"
    )
    again.add_argument("--trials", type=int, default=180, help="of each search, at least 30 [default: %(default)s]")
    again.add_argument("--workers", type=int, default=1, help="simulated, whose trials take 0.5 to 1.5 units of time")
    again.add_argument("--tables", type=Path, default=tables.FOLDER, help="folder of the tables")
    again.add_argument("--pictures", type=Path, help="folder for a picture of each table")
    again.add_argument("--processes", type=int, help="[default: one for each core]")
    many = commands.add_parser("workers", help="how much worse a search by several workers at once is than by one")
    many.add_argument("names", nargs="*", default=list(DEFAULT_TABLES), metavar="NAME", help="[default: %(default)s]")
    many.add_argument("--seeds", type=int, default=100, help="paired searches [default: %(default)s]")
    many.add_argument("--workers", type=int, nargs="+", default=[8, 32], help="simulated [default: %(default)s]")
    many.add_argument("--tables", type=Path, default=tables.FOLDER, help="folder of the tables")
    many.add_argument("--processes", type=int, help="[default: one for each core]")
    card = commands.add_parser("card", help="say what a stored table is")
    card.add_argument("name")
    given = parser.parse_args(argv)
    try:
        if given.command == "build":
            _build(given)
        elif given.command == "replay":
            _replay(given)
        elif given.command == "workers":
            _workers(given)
        else:
            _card(given.name)
    except (tables.TableError, MfasError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _build(given: argparse.Namespace) -> None:
    from benchmarks.table.build import build

    for name in given.names:
        table = build(
            LANDSCAPES[name],
            home=settings.home_folder(),
            data_root=settings.data_root(None),
            n_processes=given.processes,
            n_seeds=given.seeds,
        )
        print(f"{table.save(given.out)}: {len(table.hits_NS)} networks, separation {table.separation():.2f}")


def _replay(given: argparse.Namespace) -> None:
    from benchmarks.table.compare import compare
    from benchmarks.table.pictures import draw

    if given.seeds < 2 or given.trials < CHECKPOINTS[0] or given.workers < 1:
        raise tables.TableError("Give at least 2 seeds (differences need intervals), 30 trials and 1 worker.")
    loaded = [tables.load(name, given.tables) for name in given.names]
    print(machine(), flush=True)
    for table in loaded:
        started = time.perf_counter()
        trials = {name: min(given.trials, MAX_TRIALS.get(name, given.trials)) for name in given.contestants}
        comparison = compare(
            table, trials, seeds=range(given.seeds), n_workers=given.workers, n_processes=given.processes
        )
        print(f"\n{comparison.text([n for n in CHECKPOINTS if n <= given.trials])}")
        print(f"\n{time.perf_counter() - started:.0f} s", flush=True)
        if given.pictures:
            draw(comparison, given.pictures / f"table-{table.name}.svg")


def _workers(given: argparse.Namespace) -> None:
    from benchmarks.table.parallel import lost_regret

    if given.seeds < 2 or min(given.workers) < 2:
        raise tables.TableError("Give at least 2 seeds (differences need intervals) and 2 workers.")
    print(machine(), flush=True)
    for name in given.names:
        started = time.perf_counter()
        table = tables.load(name, given.tables)
        print(f"\n{lost_regret(table, given.workers, seeds=range(given.seeds), n_processes=given.processes)}")
        print(f"\n{time.perf_counter() - started:.0f} s", flush=True)


def _card(name: str) -> None:
    table = tables.load(name)
    card = dict(table.card)
    print(f"{name}: {card.pop('what')}; study {card.pop('study')}")
    print(f"{table.space}\n{table.hits_NS.shape[0]} networks, {table.hits_NS.shape[1]} trainings each")
    print(f"validation pairs: {table.n_rows} of each split; {card.pop('splits')}")
    print(f"weights: {card.pop('weights')}; {card.pop('group')} networks at once")
    best = int(table.scores.mean(axis=1).argmax())
    print(
        f"mean score {table.scores.mean():.4f}; best {table.scores[best].mean():.4f}, "
        f"{table.space.architecture(best).paper_notation()} with {table.parameters_N[best]:,} parameters"
    )
    print(f"deviation between the networks of the best tenth / seed noise: {table.separation():.2f}")
    print(card.pop("data").rstrip())
    print(json.dumps(card, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    raise SystemExit(main())

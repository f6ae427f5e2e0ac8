"""The benchmarks that take minutes, in one process on one thread, each ratio beside its target.

    make bench
    python -m benchmarks --only training ask
    python -m benchmarks --whole-search --channels-factor 3 --data-root ~/data

Run it on a machine that does nothing else. Benchmarks print; nothing fails when a target is missed. A GPU, where there
is one, is measured after the CPU, by the benchmarks that know how to; `--device` limits it to one of them.
`--whole-search` adds benchmarks/whole_search.py in a process of its own, on all threads; it takes long.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.report import NO_GPU, Verdict, gpu_name, machine

BENCHMARKS = ("joint", "training", "surrogate", "extraction", "ask", "group")
ON_GPU_TOO = ("training",)
"""Benchmarks that take `--device cuda`."""
QUICK = {
    "training": ["--rows", "640", "--turns", "1"],
    "ask": ["--trials", "100", "--asks", "20"],
    "group": ["--rows", "1000"],
}
"""Options for a look that the benchmarks still work; such figures mean nothing."""


def run(name: str, argv: Sequence[str]) -> list[Verdict]:
    """Run a benchmark's `main`, and return what it has beside targets."""
    module = importlib.import_module(f"benchmarks.{name}")
    takes_arguments = bool(inspect.signature(module.main).parameters)
    given, sys.argv = sys.argv, [f"benchmarks/{name}.py", *argv]  # For a `main` that reads it.
    try:
        found = module.main(list(argv)) if takes_arguments else module.main()
    finally:
        sys.argv = given
    return [verdict for verdict in found or [] if isinstance(verdict, Verdict)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="[default: the CPU, then the GPU if there is one]")
    parser.add_argument("--quick", action="store_true", help="small sizes: do they work at all?")
    parser.add_argument("--whole-search", action="store_true", help="the whole avmnist search too, stage by stage")
    parser.add_argument("--channels-factor", type=int, default=3, help="for --whole-search")
    parser.add_argument("--home", type=Path, help="for --whole-search")
    parser.add_argument("--data-root", type=Path, help="for --whole-search [default: MFAS_DATA]")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    gpu = gpu_name()
    print(f"{machine()}, GPU: {gpu or 'none'}", flush=True)
    found: list[Verdict] = []
    for name in given.only if given.device != "cuda" else ():
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            print(f"\n== {name}: there is no such benchmark yet")
            continue
        found += _timed(name, QUICK.get(name, []) if given.quick else [])
    if gpu is None:
        print(f"\n{NO_GPU}")
    elif given.device != "cpu":
        for name in given.only:
            if name in ON_GPU_TOO:
                _timed(name, ["--device", "cuda", *(QUICK.get(name, []) if given.quick else [])])
    if found:
        print("\n== Targets\n")
        for verdict in found:
            print(verdict)
    if given.whole_search:
        print("\n== whole_search\n", flush=True)
        command = [sys.executable, "-m", "benchmarks.whole_search", "--channels-factor", str(given.channels_factor)]
        for option, path in (("--home", given.home), ("--data-root", given.data_root)):
            command += [option, str(path)] if path is not None else []
        # A process of its own: this one's memory would be the least that it sees of the stages'.
        subprocess.run(command, check=True)


def _timed(name: str, argv: Sequence[str]) -> list[Verdict]:
    print(f"\n== {' '.join([name, *argv])}\n", flush=True)
    started = time.perf_counter()
    found = run(name, argv)
    print(f"\n({name} took {time.perf_counter() - started:.0f} s)", flush=True)
    return found


if __name__ == "__main__":
    main()

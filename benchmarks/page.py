"""What the report's page costs for a study of many trials: making it, its size, and opening it in chromium.

    python -m benchmarks.page
    python -m benchmarks.page --trials 1000

The trials are those of benchmarks/ask.py, with records of weights and sizes, in memory: storing so many in a database
takes many times as long as all that is measured. Opening is timed from the request for the file until the last plot is
drawn, in a browser that is already running; the median of several. It is left out where there is no chromium with
chromedriver.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import optuna

from benchmarks.ask import SPACE, filled
from benchmarks.report import Verdict, machine
from mfas_optuna import trials as records
from mfas_optuna.report import html, judge
from mfas_optuna.report.data import collect_from
from mfas_optuna.report.html.pictures import picture_study
from mfas_optuna.spec import find_study, load_spec
from mfas_optuna.trials import LayerWeights

MAX_SIZE_MB = 8.0
MAX_OPENING_S = 3.0
N_OPENINGS = 5


def searched(n_trials: int) -> optuna.Study:
    """Return a study of this many trials, with everything that those of a search record."""
    spec = load_spec(find_study("digits"))
    study = optuna.create_study(study_name="digits", direction="maximize")
    records.write_study(study, scientific=spec.scientific(), fingerprint=spec.fingerprint())
    records.add_timing(study, "search", 60.0)
    latest: dict[str, str] = {}
    trials = filled(n_trials).get_trials(deepcopy=True)
    for trial in trials:
        architecture = SPACE.from_parameters(trial.params)
        if architecture is None:
            raise ValueError(f"Trial {trial.number} names no network of the space.")
        weights = []
        for position, layer in enumerate(architecture.layers):
            key = f"{position}:{sum(layer.features)}:8"
            weights.append(LayerWeights(key, latest.get(key), f"{trial.number}:{position}"))
        latest |= {layer.key: layer.published for layer in weights}
        trial.user_attrs |= {
            records.ARCHITECTURE: architecture.paper_notation(),
            records.N_PARAMETERS: sum(100 + 37 * sum(layer.features) for layer in architecture.layers),
            records.TORCH: "2.13.0, cpu",
            records.WEIGHTS: json.dumps([asdict(layer) for layer in weights]),
        }
    study.add_trials(trials)
    return study


def opened(path: Path) -> float | None:
    """Return the median of seconds until a page is drawn; None where there is no browser."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            seconds = []
            for _ in range(N_OPENINGS):
                chrome.get("about:blank")
                start = time.perf_counter()
                chrome.get(path.as_uri())
                while not chrome.execute_script("return document.documentElement.hasAttribute('data-drawn')"):
                    time.sleep(0.01)
                seconds.append(time.perf_counter() - start)
        finally:
            chrome.quit()
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    given = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path, study = Path(folder) / "report.html", searched(given.trials)
        start = time.perf_counter()
        spec = load_spec(find_study("digits"))
        results = collect_from(study._storage, study, spec, "--study digits")
        verdict = judge(results)
        collected = time.perf_counter()
        pictures = picture_study(study, results, verdict)
        pictured = time.perf_counter()
        path.write_text(html.render(results, verdict, pictures), encoding="utf-8", newline="\n")
        written = time.perf_counter()
        size_mb = path.stat().st_size / 1e6
        making = f"collected in {collected - start:.1f} s, pictures in {pictured - collected:.1f} s"
        print(f"{given.trials:,} trials: {making}, page in {written - pictured:.1f} s")
        verdicts = [Verdict("size of the page", size_mb, MAX_SIZE_MB, "at most", " MB")]
        opening_s = opened(path)
        if opening_s is None:
            print("opening: no chromium with chromedriver: not measured")
        else:
            verdicts.append(Verdict("opening the page", opening_s, MAX_OPENING_S, "at most", " s"))
    for each in verdicts:
        print(each)
    return verdicts


if __name__ == "__main__":
    main()

"""The pictures of a report as files: figures as PNG, which a browser on this machine draws, and drawings as SVG."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from mfas_optuna.errors import HomeError, PictureError
from mfas_optuna.report.html.page import file_text, policy
from mfas_optuna.report.html.pictures import Pictures

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that can draw, the first that is there does."""
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=2",
)
WIDTH = 800
"""Of a figure, in CSS pixels: two pixels of the file each."""
TIMEOUT_S = 120
INK, PAPER = "#1c2024", "#ffffff"

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<style>body {{ margin: 0; background: {paper}; }}</style></head><body><div id="plot"></div>
<script type="application/json" id="figure">{figure}</script><script>{plotly}</script><script>{script}</script>
</body></html>
"""


def save(pictures: Pictures, folder: Path) -> list[Path]:
    """Write each figure that there is something to draw of as a PNG file, and the networks as SVG files.

    Args:
        pictures: What is shown of a study.
        folder: Where to; made where it is not there. Files of the same names are replaced.

    Returns:
        The files: NAME.png by the names of the figures, best-1.svg and so on, compared-1.svg and so on.

    Raises:
        PictureError: There is no browser on this machine, or it does not draw.
        HomeError: The folder cannot be written.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise PictureError(
            f"--png {folder}: expected a browser that draws the figures, one of {', '.join(BROWSERS)}; found none on "
            "the path. Install Chromium, or write the report as a page: each of its figures can be saved from there."
        )
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, drawings in (("best", pictures.best), ("compared", pictures.compared)):
            for number, drawing in enumerate(drawings, start=1):
                if drawing.svg:
                    written.append(folder / f"{kind}-{number}.svg")
                    written[-1].write_text(drawing.svg, encoding="utf-8", newline="\n")
        for name, figure in pictures.figures.items():
            if "missing" not in figure.layout.meta:
                written.append(folder / f"{name}.png")
                _photograph(browser, figure, written[-1])
    except OSError as error:
        raise HomeError(f"--png {folder}: it cannot be written: {error.strerror}. Name a folder that can.") from error
    return written


def _photograph(browser: str, figure: Any, path: Path) -> None:
    height = int(figure.layout.height)
    scripts = (get_plotlyjs(), file_text("png.js"))
    shown = type(figure)(figure).update_layout(width=WIDTH, font_color=INK, paper_bgcolor=PAPER)
    page = _PAGE.format(
        policy=policy(scripts),
        paper=PAPER,
        figure=shown.to_json().replace("<", "\\u003c"),
        plotly=scripts[0],
        script=scripts[1],
    )
    with tempfile.TemporaryDirectory(prefix="mfas-png-") as folder:
        source, target = Path(folder) / "figure.html", Path(folder) / "figure.png"
        source.write_text(page, encoding="utf-8", newline="\n")
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append(
                "--no-sandbox"
            )  # Chromium refuses to run as root with it; the page is ours and loads nothing.
        command += [f"--screenshot={target}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise PictureError(f"{path.name}: {browser} did not draw it within {TIMEOUT_S} s. Try again.") from error
        if not target.exists():
            said = "; ".join(done.stderr.strip().splitlines()[-2:]) or "nothing"
            raise PictureError(f"{path.name}: {browser} ended with {done.returncode} and drew nothing. It said: {said}")
        shutil.move(target, path)

"""A real browser: Debian's chromium, without a window and without a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
TIMEOUT_S = 60


class Browser:
    """Chromium with a page in it.

    Attributes:
        driver: Selenium's.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def run(self, script: str) -> Any:
        """Run the body of a JavaScript function in the page, and return what it returns."""
        return self.driver.execute_script(script)

    def look(self, *, width: int, dark: bool = False, media: str = "screen") -> None:
        """Set the width of the window in pixels, the reader's colours, and the medium."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})

    def open(self, path: Path) -> None:
        """Open a report from a file, and wait until its plots are drawn."""
        self.visit(path.as_uri(), "return document.documentElement.getAttribute('data-drawn') === 'true'")

    def visit(self, url: str, is_ready: str) -> None:
        """Open a page, and wait until the body of a JavaScript function returns true in it."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)
        deadline = time.monotonic() + TIMEOUT_S
        while self.run(is_ready) is not True:
            if time.monotonic() > deadline:
                pytest.fail(f"{url} was not ready within {TIMEOUT_S} s: {self.complaints()}")
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """Return what the console says since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the address of everything that was asked for since the page was opened."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def opened(profile: Path, *flags: str) -> Iterator[Browser]:
    """Start a browser with a fresh profile; skip the test where there is none, fail it under CI.

    Args:
        profile: An empty folder.
        flags: Further ones of Chromium's.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        lacking = "chromium and chromedriver, which open pages, are not installed (apt-get install chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    options = Options()
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()

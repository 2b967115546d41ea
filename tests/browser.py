"""A real headless Chromium, asked over WebDriver; what it said on its console and what it wanted from the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def programs() -> tuple[str, str] | None:
    """The browser and its driver; None where one of them is missing."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return None if program is None or driver is None else (program, driver)


@contextmanager
def browser(size: str = "1280,900", *, script: bool = True, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser of the test's own. Skips the test where there is none."""
    found = programs()
    if found is None:
        pytest.skip("not run: no Chromium with its driver. On Debian: apt install chromium chromium-driver")
    program, driver = found
    options = Options()
    options.binary_location = program
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", "no-first-run", "hide-scrollbars", f"window-size={size}"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    if dark:
        options.add_argument("--force-dark-mode")
    if not script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        opened.set_page_load_timeout(60)
        yield opened
    finally:
        opened.quit()


def console(opened: webdriver.Chrome) -> list[str]:
    """What the console was told since the last call, warnings and errors."""
    return [entry["message"] for entry in _log(opened, "browser") if entry["level"] in ("SEVERE", "WARNING")]


def asked_for(opened: webdriver.Chrome) -> list[str]:
    """Addresses of everything requested since the last call that is not a file or in the page itself."""
    found = []
    for entry in _log(opened, "performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(str(message["params"]["request"]["url"]))
    return [url for url in found if not url.startswith(("file:", "data:", "about:", "chrome:"))]


def _log(opened: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = opened.get_log(kind)  # type: ignore[no-untyped-call]
    return found


def seconds_until_usable(opened: webdriver.Chrome, page: Path) -> float:
    """From asking for a page until its load event has ended and the next frame is drawn."""
    opened.get(page.as_uri())
    opened.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
    )
    took: float = opened.execute_script("return performance.now()")
    return took / 1000


def serious(opened: webdriver.Chrome) -> list[str]:
    """What axe-core holds against the page: serious and critical."""
    from axe_core_python.base import AXE_FILE_PATH  # type: ignore[import-untyped]

    opened.execute_script(Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    found = opened.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((r) => done(r.violations));"
    )
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]

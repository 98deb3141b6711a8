"""Shared tools of the tests with a browser: a headless Chromium of its own, of which nothing stays behind."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.harness import wait_until

_SECONDS = 20.0  # for all that a page does
_FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "disable-breakpad", "hide-scrollbars"),
)
_T = TypeVar("_T")


class Browser:
    """A browser, and the waits for its pages."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Return the visible texts of all matching elements."""
        script = "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText.trim())"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def wait(self, condition: Callable[[], _T], what: str) -> _T:
        return wait_until(condition, _SECONDS, what)

    def wait_for_text(self, selector: str, text: str) -> str:
        """Wait until an element has a text in it. Return the whole text."""
        found = self.wait(
            lambda: [each for each in self.texts(selector) if text in each], f"{text!r} in {selector} of the page"
        )
        return found[0]

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def command(self, name: str, **values: Any) -> Any:
        """Give a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def complaints(self) -> list[str]:
        """Return what the console says of errors, violations of a page's policy included, since the last call."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] != "INFO"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser. It uses the driver of this machine, and downloads nothing."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "install the packages chromium and chromium-driver"
    with tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True) as folder:
        options = ChromeOptions()
        options.binary_location = str(programs[0])
        for flag in (*_FLAGS, f"user-data-dir={folder}/profile"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        homes = {"HOME": folder, "TMPDIR": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder}
        service = ChromeService(str(programs[1]), env={**os.environ, **homes}, popen_kw={"start_new_session": True})
        try:
            driver = Chrome(options=options, service=service)
            driver.set_page_load_timeout(_SECONDS)
            driver.set_script_timeout(_SECONDS)
            try:
                yield Browser(driver)
            finally:
                driver.quit()
        finally:
            with contextlib.suppress(ProcessLookupError, AttributeError):  # AttributeError: it did not start
                os.killpg(service.process.pid, signal.SIGKILL)
            wait_until(lambda: not _end(folder), 10.0, "all processes of the browser have ended")


def _end(folder: str) -> list[int]:
    """End the processes that work in a directory of a browser. Return them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if folder.encode() in path.read_bytes():
                found.append(int(path.parent.name))
                os.kill(found[-1], signal.SIGKILL)
    return found

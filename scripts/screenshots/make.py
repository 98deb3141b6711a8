"""Make the pictures of `bentofs serve` in this directory anew: `.venv/bin/python scripts/screenshots/make.py`.

It serves the sample store with some more models, sends a good and a damaged archive, and takes the pictures with a
headless Chromium. It needs what the tests need: chromium and chromium-driver. The directory and the port of this run
are written as those of an ordinary server.
"""

import base64
import os
import re
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser import Browser, chromium  # noqa: E402
from tests.harness import make_model, run  # noqa: E402
from tests.incoming import made_tar  # noqa: E402
from tests.serving import Served  # noqa: E402

_LARGEST = 150_000  # bytes of a picture
_MODELS = {
    "churn:2026-01": ("xgboost", {"stage": "archived", "team": "growth"}),
    "churn:2026-02": ("xgboost", {"stage": "prod", "team": "growth"}),
    "invoice-ocr:r18": ("pytorch", {"stage": "staging", "team": "documents"}),
    "price-forecast:a3f9": ("lightgbm", {"stage": "prod", "team": "pricing", "horizon": "14d"}),
    "price-forecast:b710": ("lightgbm", {"stage": "staging", "team": "pricing", "horizon": "28d"}),
    "search-ranker:7": ("onnx", {"stage": "prod", "team": "search"}),
}
_ORDINARY = """
    const [from, to] = arguments, walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) from.forEach((each, at) => {
        walker.currentNode.data = walker.currentNode.data.replaceAll(each, to[at]);
    });
"""


def store_in(base: Path) -> Path:
    """Make a store."""
    run(sys.executable, ROOT / "scripts" / "sample_store.py", base / "bentoml" / "models")
    store = base / "bentoml" / "models"
    for number, (tag, (framework, labels)) in enumerate(_MODELS.items()):
        weights = os.urandom(40_000 * (number + 1) ** 2)
        created = f"2026-0{number + 1}-1{number}T0{number}:30:00+00:00"
        files: dict[str | bytes, bytes | int] = {"weights.bin": weights, "README.md": b"A model."}
        description = make_model(store, tag, files, labels=labels, creation_time=created) / "model.yaml"
        description.write_text(re.sub("(?m)^module: .*", f"module: bentoml.{framework}", description.read_text()))
    return store


def resize(browser: Browser, width: int, height: int) -> None:
    """Set the size of the window."""
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def picture(browser: Browser, server: Served, name: str, width: int, height: int, *, dark: bool = False) -> None:
    """Take a picture of the page as it is now."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    resize(browser, width, height)
    browser.command("Emulation.setEmulatedMedia", features=[scheme])
    time.sleep(2)  # for what is still moving
    browser.driver.execute_script(
        _ORDINARY, [str(server.store), server.url], ["/srv/bentoml/models", "http://127.0.0.1:8080"]
    )
    png = base64.b64decode(browser.command("Page.captureScreenshot", format="png")["data"])
    assert len(png) < _LARGEST, f"{name}.png has {len(png)} bytes"
    (HERE / f"{name}.png").write_bytes(png)
    print(f"{name}.png: {width} x {height}, {len(png)} bytes")


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        good = made_tar(base, "sentiment:v4", {"weights.bin": os.urandom(700_000)}, labels={"stage": "staging"})
        damaged = base / "invoice-ocr-r19.tar"
        whole = made_tar(base, "invoice-ocr:r19", {"weights.bin": os.urandom(900_000)}).read_bytes()
        damaged.write_bytes(whole[:300_000])
        with Served(store_in(base), base) as server, chromium() as browser:
            server.expect_log("invoice-ocr-r19.tar was not imported: ")
            resize(browser, 1200, 800)
            browser.open(f"{server.url}/")
            browser.one("#files").send_keys(str(good))
            browser.wait_for_text("#uploads .good", "sentiment:v4 imported")
            browser.one("#files").send_keys(str(damaged))
            browser.wait_for_text("#uploads .bad", "cut short")
            browser.wait_for_text("#results", "sentiment")
            picture(browser, server, "upload", 1200, 760)
            browser.open(f"{server.url}/models/iris-species/v1/")
            picture(browser, server, "model", 1200, 1180)
            picture(browser, server, "phone-model", 390, 844, dark=True)
            browser.open(f"{server.url}/")
            picture(browser, server, "phone", 390, 844, dark=True)
            browser.open("about:blank")


if __name__ == "__main__":
    main()

"""The pages of `bentofs serve`, in a real browser."""

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import Browser, chromium
from tests.harness import make_model
from tests.incoming import made_tar
from tests.servers import Proxy
from tests.serving import Served

HOSTILE = "<script>alert(1)</script>"
HOSTILE_FILE = "<img src=x onerror=alert(1)>.txt"
HEADER = json.dumps(
    {"__metadata__": {"by": HOSTILE}, "layer.weight": {"dtype": "F32", "shape": [30, 40], "data_offsets": [0, 4800]}}
).encode()
FILES = {
    "w.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4800),
    "cut.safetensors": struct.pack("<Q", 10_000) + HEADER,
    "short.safetensors": b"x",
    "odd.safetensors": struct.pack("<Q", 2) + b"[]",
    "n.ipynb": json.dumps(
        {"cells": [{"cell_type": "code", "source": [HOSTILE], "outputs": [{"text": "42"}]}]}
    ).encode(),
    "long.txt": b"y" * 300_000,
    "dot.png": b"\x89PNG\r\n\x1a\n",
    "README": b"\0\1",
    HOSTILE_FILE: HOSTILE.encode(),
}
SECRET = "sekret-" * 5
MANY = 55  # more than a page of the list has
VIEWS = "/.page/view/models/iris/v2/files"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("server")
    store = base / "models"
    make_model(store, "iris:v1", {"w": b"w" * 1000}, labels={"stage": "old"})
    make_model(store, "iris:v2", FILES, labels={"stage": "prod", "by": HOSTILE})
    make_model(store, "lang:v1", {"w": b"w"}, labels={"stage": "prod"}, creation_time="2026-01-01T00:00:00+00:00")
    for number in range(MANY):
        make_model(store, f"many-{number:02}:v1", {"w": b"w"})
    with Served(store, base) as server:
        yield server


@pytest.fixture(scope="module")
def only_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(only_browser: Browser) -> Iterator[Browser]:
    """The browser. Its console must have no complaint in the end: no error, no violation of a page's policy."""
    only_browser.complaints()
    yield only_browser
    assert only_browser.complaints() == []


def drop(browser: Browser, *paths: Path) -> None:
    """Drop files on the page, like from a file manager."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.command("Input.dispatchDragEvent", type=kind, x=200, y=300, data=data)


def names(browser: Browser) -> list[str]:
    """Return the models of the list."""
    return browser.texts("#results .model")


def test_search_and_filter(server: Served, browser: Browser) -> None:
    browser.open(f"{server.url}/")
    assert browser.one("#count").text == f"{MANY + 3} models"
    assert len(names(browser)) == 50
    assert names(browser)[:3] == ["iris:v1", "iris:v2", "lang:v1"]
    browser.one("a[rel=next]").click()
    browser.wait(lambda: len(names(browser)) == MANY + 3 - 50, "the second page")
    browser.driver.back()
    browser.wait(lambda: len(names(browser)) == 50, "the first page")
    box = browser.one("#q")
    box.send_keys("Lan")
    browser.wait(lambda: names(browser) == ["lang:v1"], "the list follows what is typed")
    assert browser.driver.current_url.endswith("/?q=Lan")
    box.send_keys(Keys.BACKSPACE * 3)
    browser.wait(lambda: len(names(browser)) == 50, "all models")
    next(link for link in browser.all("#results .facets a") if link.text.startswith("stage=prod")).click()
    browser.wait(lambda: sorted(names(browser)) == ["iris:v2", "lang:v1"], "only models with the label")
    browser.one("#q").send_keys("zzz")
    browser.wait_for_text("#results", "No model matches")
    browser.driver.refresh()
    assert browser.texts("#results .label.on") == ["stage=prod \u00d7"]
    assert browser.one("#q").get_attribute("value") == "zzz"


def test_a_model(server: Served, browser: Browser) -> None:
    browser.open(f"{server.url}/?q=iris")
    next(link for link in browser.all("#results .model") if link.text == "iris:v2").click()
    browser.wait_for_text("h1", "iris:v2")
    links = {link.text: str(link.get_attribute("href")) for link in browser.all(".archives th a")}
    assert sorted(links) == [f"iris-v2.{kind}" for kind in ("bentomodel", "tar", "tar.gz", "zip")]
    bodies = {}
    for name, link in links.items():
        with urllib.request.urlopen(link, timeout=30) as answer:
            bodies[name] = answer.read()
        assert bodies[name] == server.get(f"/models/iris/v2/{name}").body
    browser.open(f"{server.url}/models/iris/v2/")
    rows = browser.all(".archives tbody tr")
    for row, name in zip(rows, links, strict=True):
        exact = row.find_element(By.CSS_SELECTOR, ".number span").get_attribute("title")
        assert exact == f"{len(bodies[name]):,} bytes"
        row.find_element(By.CSS_SELECTOR, "td:last-child > *").click()
    sums = [hashlib.sha256(bodies[name]).hexdigest() for name in links]
    browser.wait(lambda: browser.texts(".archives code.sum") == sums, "the sums of all archives")
    commands = browser.texts(".command pre code")
    assert commands[0] == f"curl -fO {server.url}/models/iris/v2/iris-v2.bentomodel"
    assert 'bentoml models import "$PWD/iris-v2.bentomodel"' in commands
    assert any(" rsync -a " in f" {command}" for command in commands)
    browser.one(".command button").click()
    browser.wait_for_text(".command button", "Copied")
    assert "stage: prod" in browser.texts("section pre.text")[-1]
    browser.open(f"{server.url}/models/lang/v1/")
    browser.one(".archives button").click()
    browser.wait(lambda: re.fullmatch(r"[\d.]+ k?B", browser.texts(".archives td.number")[2]), "the size of the third")


def test_models_are_untrusted(server: Served, browser: Browser) -> None:
    """Markup in them is text. If it ran, an alert would be open, and each later command would fail."""
    for path in ("/", "/?label=by%3D%3Cscript%3Ealert(1)%3C/script%3E", "/models/iris/v2/", "/models/iris/v2/files/"):
        browser.open(server.url + path)
        assert HOSTILE in browser.one("main").text or HOSTILE_FILE in browser.one("main").text
        assert browser.all("main script, main img") == []
    browser.one('a[href*="onerror"][href^="/.page/view/"]').click()
    browser.wait_for_text("pre.text", HOSTILE)
    assert browser.one("h1").text == HOSTILE_FILE
    browser.open(f"{server.url}/?q=%22%3E{HOSTILE}")
    assert browser.one("#q").get_attribute("value") == f'">{HOSTILE}'


def test_a_script_that_is_not_ours_does_not_run(server: Served, only_browser: Browser) -> None:
    """The policy of the page stops it, and the console tells: so the other tests would see a violation."""
    only_browser.open(f"{server.url}/")
    only_browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.bad = 1'; document.body.append(s)"
    )
    assert only_browser.run("return window.bad") is None
    assert "Content Security Policy" in "".join(only_browser.complaints())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "w.safetensors",
            ["1 tensor, 1,200 weights", "layer.weight", "30 x 40", "&lt;script&gt;alert(1)&lt;/script&gt;"],
        ),
        ("cut.safetensors", ["is cut short"]),
        ("short.safetensors", ["too short for a header"]),
        ("odd.safetensors", ["is no JSON"]),
        ("n.ipynb", ["&lt;script&gt;alert(1)&lt;/script&gt;", "<samp>42</samp>"]),
        ("long.txt", ["y" * (256 << 10), "This is the beginning of the file"]),
        ("dot.png", ['<img src="/models/iris/v2/files/dot.png"']),
        ("README", ["This is no text"]),
    ],
)
def test_files_to_look_at(server: Served, name: str, shown: list[str]) -> None:
    page = server.get(f"{VIEWS}/{name}")
    assert page.status == 200
    text = page.body.decode()
    assert len(text) < (256 << 10) + 10_000
    for each in shown:
        assert each in text
    assert re.search(r"script-src 'self'", page.headers["Content-Security-Policy"])
    assert "unsafe" not in page.headers["Content-Security-Policy"]


def test_uploads(server: Served, browser: Browser, tmp_path: Path) -> None:
    good = made_tar(tmp_path, "chosen:v1", {"w": b"chosen" * 1000}, labels={"stage": "prod"})
    dropped = made_tar(tmp_path, "dropped:v1", {"w": b"dropped" * 1000})
    bad = tmp_path / "<b>note.tar"
    bad.write_text("hello\n" * 1000)
    (tmp_path / "folder").mkdir()
    server.expect_log("note.tar was not imported: ", 1)
    browser.open(f"{server.url}/?label=stage%3Dprod")
    browser.run("window.stays = true")
    browser.one("#files").send_keys(str(good))
    browser.wait_for_text("#uploads .good", "chosen:v1 imported")
    browser.wait(lambda: "chosen:v1" in names(browser), "the list has it")
    browser.wait_for_text("#imports .imported", "chosen:v1")
    drop(browser, bad, dropped, tmp_path / "folder")
    browser.wait_for_text("#uploads .good", "dropped:v1 imported")
    browser.wait_for_text("#uploads .bad", "A directory cannot be sent")
    told = browser.wait_for_text("#uploads .bad", "not an archive of a model")
    assert "<b>note.tar" in browser.one("#uploads").text
    assert told in browser.wait_for_text("#imports .refused", "<b>note.tar")
    assert browser.run("return window.stays")
    assert server.get("/models/dropped/v1/files/w").body == b"dropped" * 1000
    assert [line for line in browser.complaints() if " 415 " not in line] == []


def test_an_upload_that_is_interrupted(server: Served, browser: Browser, tmp_path: Path) -> None:
    archive = made_tar(tmp_path, "slow:v1", {"w": bytes(9_000_000)})
    server.expect_log("slow-v1.tar was not imported: only ", 1)
    browser.open(f"{server.url}/.page/imports")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1}
    browser.command("Network.enable")
    browser.command("Network.emulateNetworkConditions", uploadThroughput=1_200_000, **limits)
    try:
        browser.one("#files").send_keys(str(archive))
        browser.wait_for_text("#imports .receiving", "slow-v1.tar")
        browser.one("#uploads button").click()
        browser.wait_for_text("#uploads .outcome", "Cancelled")
    finally:
        browser.command("Network.emulateNetworkConditions", uploadThroughput=-1, **limits)
    browser.wait_for_text("#imports .refused .reason", f"of its {archive.stat().st_size:,} bytes came: send the rest")
    browser.one("#files").send_keys(str(archive))
    browser.wait_for_text("#uploads .good", "slow:v1 imported")
    browser.wait_for_text("#imports .imported", "slow:v1")


def test_an_import_shows_in_all_windows(server: Served, browser: Browser, tmp_path: Path) -> None:
    archive = made_tar(tmp_path, "shared:v1")
    first = browser.driver.current_window_handle
    browser.open(f"{server.url}/?q=shared")
    browser.run("window.stays = true")
    browser.driver.switch_to.new_window("window")
    try:
        browser.open(f"{server.url}/.page/imports")
        browser.one("#files").send_keys(str(archive))
        browser.wait_for_text("#imports .imported", "shared:v1")
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(first)
    browser.wait_for_text("#imports .imported", "shared:v1")
    browser.wait(lambda: names(browser) == ["shared:v1"], "the list has it")
    with Served(server.store, tmp_path) as other:
        other.ask("PUT", "/incoming/x.tar", body=made_tar(tmp_path, "shared:v2").read_bytes())
        browser.wait_for_text("#imports .imported", "shared:v2")
    assert browser.run("return window.stays")


def test_on_a_phone_and_in_the_dark(server: Served, browser: Browser) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.command("Emulation.setEmulatedMedia", features=[dark])
    try:
        for path in ("/", "/models/iris/v2/", "/models/iris/", "/.page/imports", f"{VIEWS}/w.safetensors",
                     f"{VIEWS}/long.txt", "/models/iris/v2/files/", "/incoming/"):  # fmt: skip
            browser.open(server.url + path)
            assert browser.run("return document.documentElement.scrollWidth") <= 390, path
            red, green, blue = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
            assert int(red) + int(green) + int(blue) < 150
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")
        browser.command("Emulation.setEmulatedMedia", features=[])


def test_by_keyboard(server: Served, browser: Browser) -> None:
    browser.open(f"{server.url}/?q=lang")
    focused = browser.driver.switch_to.active_element
    focused.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the content"
    for _ in range(30):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.driver.switch_to.active_element.text == "lang:v1":
            break
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait_for_text("h1", "lang:v1")


def test_without_scripts(server: Served, browser: Browser, tmp_path: Path) -> None:
    archive = made_tar(tmp_path, "plain:v1", {"w": b"plain" * 100})
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(f"{server.url}/")
        browser.one("#q").send_keys("lang")
        browser.one("#search button").click()
        browser.wait(lambda: names(browser) == ["lang:v1"], "the search by its button")
        browser.one("#results .model").click()
        browser.wait_for_text("h1", "lang:v1")
        link = str(browser.one('.archives a[href$=".zip"]').get_attribute("href"))
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert answer.read() == server.get("/models/lang/v1/lang-v1.zip").body
        browser.open(f"{server.url}/.page/imports")
        browser.one("#files").send_keys(str(archive))
        browser.one("#upload button").click()
        browser.wait_for_text(".uploads .good", "plain:v1 imported")
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert server.get("/models/plain/v1/files/w").body == b"plain" * 100


def test_a_download_that_breaks(browser: Browser, proxies: Callable[[int], Proxy], tmp_path: Path) -> None:
    """The browser resumes it by itself, if the connection ends in good order."""
    make_model(tmp_path / "models", "big:v1", {"w": os.urandom(12 << 20)})
    target = tmp_path / "downloads" / "big-v1.tar"
    with Served(tmp_path / "models", tmp_path) as server:
        proxy = proxies(server.address[1])
        broken: list[int] = []

        def trouble(proxy: Proxy) -> str | None:
            if len(broken) < 2 and proxy.received > 4_000_000 * (len(broken) + 1):
                broken.append(proxy.received)
                return "close"
            return None

        proxy.trouble_when = trouble
        browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(target.parent))
        try:
            browser.open(f"{proxy.endpoint}/models/big/v1/")
            browser.one('.archives a[href$=".tar"]').click()
            browser.wait(target.is_file, "the download has ended")
        finally:
            browser.command("Browser.setDownloadBehavior", behavior="default")
        want = server.get("/models/big/v1/big-v1.tar").body
        assert target.read_bytes() == want
        assert len(broken) == 2
        assert proxy.received < len(want) * 1.7
        browser.open("about:blank")


def test_behind_a_password(browser: Browser, tmp_path: Path) -> None:
    """It works everywhere, also if it is in the address, and no page shows it."""
    make_model(tmp_path / "models", "iris:v1", {"w": b"w"})
    upload = made_tar(tmp_path, "new:v1")
    with Served(tmp_path / "models", tmp_path, environment={"BENTOFS_SERVE_TOKEN": SECRET}) as server:
        assert server.get("/").status == 401
        host, port = server.address
        browser.open(f"http://any:{SECRET}@{host}:{port}/")
        browser.one("#files").send_keys(str(upload))
        browser.wait_for_text("#imports .imported", "new:v1")
        browser.wait(lambda: names(browser) == ["iris:v1", "new:v1"], "the list has it")
        browser.one("#q").send_keys("iris")
        browser.wait(lambda: names(browser) == ["iris:v1"], "the list follows what is typed")
        browser.one("#results .model").click()
        browser.wait_for_text("h1", "iris:v1")
        assert browser.texts(".command code")[0].startswith(f"curl -fO -u USER {server.url}/models/")
        browser.one(".archives tbody td:last-child a").click()
        archive = server.get("/models/iris/v1/iris-v1.bentomodel", Authorization=f"Bearer {SECRET}")
        browser.wait_for_text(".archives", hashlib.sha256(archive.body).hexdigest())
        assert SECRET not in browser.driver.page_source
        browser.open("about:blank")
        assert SECRET not in server.log()


def test_the_end_of_the_server_ends_open_pages(tmp_path: Path) -> None:
    """They listen for imports, and are no requests under way that it would wait for."""
    make_model(tmp_path / "models", "iris:v1", {"w": b"w"})
    server = Served(tmp_path / "models", tmp_path)
    with contextlib.ExitStack() as stack:
        with server:
            sock = stack.enter_context(socket.create_connection(server.address, timeout=30))
            sock.sendall(b"GET /.page/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        while sock.recv(1000):
            pass

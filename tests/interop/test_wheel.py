"""The wheel in a fresh environment: one package, and commands that no file in the working directory can break."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, home_of, make_model, run

PROGRAM = """
import bentofs, sys
with bentofs.Store() as store:
    print([str(model.tag) for model in store.list()])
    with store.open("iris", "tar") as archive:
        print(archive.seek(0, 2))
print(bentofs.export_model("iris", sys.argv[1]))
for name in ("mount", "store"):
    try:
        __import__(name)
        print(name, "can be imported")
    except ImportError:
        pass
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with only the wheel and its requirements."""
    base = tmp_path_factory.mktemp("wheel")
    run("git", "-c", f"safe.directory={ROOT}", "clone", "-q", ROOT, base / "clone")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", base, base / "clone", seconds=300)
    run(sys.executable, "-m", "venv", "--without-pip", base / "venv", seconds=120)
    pip = [sys.executable, "-m", "pip", "--python", base / "venv"]
    run(*pip, "install", "-q", "--no-compile", *base.glob("*.whl"), seconds=300)
    return base / "venv"


def test_python_api_and_commands(environment: Path, tmp_path: Path) -> None:
    homes = home_of(tmp_path / "home")
    store = Path(homes["BENTOML_HOME"], "models")
    store.mkdir(parents=True)
    make_model(store, "iris:v1", {"w": b"weights"})
    for name in ("mount.py", "store.py", "click.py"):  # in the working directory, and not ours
        (tmp_path / name).write_text("raise SystemExit('imported from the working directory')\n")
    (tmp_path / "program").mkdir()
    program = tmp_path / "program/api.py"
    program.write_text(PROGRAM)
    inherited = {**os.environ, **homes}
    inherited.pop("PYTHONPATH", None)
    done = subprocess.run(
        [environment / "bin/python", program, tmp_path / "iris.zip"],
        env=inherited, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["['iris:v1']", "10240", str(tmp_path / "iris.zip")]
    listed = subprocess.run(
        [environment / "bin/bentofs", "list"],
        env=inherited, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "iris:v1" in listed.stdout


def test_pages_are_in_it(environment: Path) -> None:
    source = ROOT / "mount/serve/pages"
    installed = next(environment.glob("lib/python3*/site-packages/bentofs/mount/serve/pages"))
    files = [path for folder in ("templates", "assets") for path in (source / folder).iterdir()]
    assert len(files) > 15
    assert [path for path in files if (installed / path.relative_to(source)).read_bytes() != path.read_bytes()] == []

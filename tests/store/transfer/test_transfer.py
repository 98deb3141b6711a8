"""Exports and imports on this machine and in memory, with BentoML's arguments."""

import hashlib
import io
import itertools
import os
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bentofs.store.api import export_model, import_model
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import (
    BadLocationError,
    CancelledError,
    DamagedArchiveError,
    ModelExistsError,
    NoSpaceError,
    NotAModelError,
    NotFoundError,
    SourceChangedError,
    StoreUnreadableError,
    TargetExistsError,
    UnsafeMemberError,
)
from bentofs.store.formats.pieces import Literal
from bentofs.store.location import Location
from bentofs.store.model.tag import Tag
from bentofs.store.transfer.endpoints.local import LocalEndpoint
from bentofs.store.transfer.exporter import Exporter
from bentofs.store.wiring.transfers import opened_exporter
from tests.harness import home_of, make_model
from tests.store.counting import CountingStorage
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user

_FILES: dict[str | bytes, bytes | int] = {
    "weights.bin": bytes(range(256)) * 20_000,
    "empty.bin": b"",
    "nested/deep/leaf": b"x",
    "run.sh": b"#!",
    "an empty folder/": b"",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def model(home: Path) -> Path:
    """A model in BentoML's default store."""
    return make_model(home / "bentoml" / "models", "demo:v1", _FILES, executable=["run.sh"])


@pytest.fixture
def other(tmp_path: Path) -> str:
    """An empty store."""
    (tmp_path / "other" / "models").mkdir(parents=True)
    return str(tmp_path / "other" / "models")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def same(model: Path, store: str, *, modes: bool = True) -> None:
    there = Path(store, "demo", "v1")
    subprocess.run(["diff", "-r", str(model), str(there)], check=True)
    if modes:
        assert stat.S_IMODE((there / "run.sh").stat().st_mode) & 0o100


def test_a_store_that_is_not_there_is_made(model: Path, tmp_path: Path) -> None:
    archive = export_model("demo:v1", str(tmp_path / "m.tar"))
    assert str(import_model(archive, store=str(tmp_path / "new" / "models"))) == "demo:v1"
    same(model, str(tmp_path / "new" / "models"))


@pytest.mark.parametrize(
    "name", ["m.bentomodel", "m.tar", "m.tar.gz", "m.gz", "m.tgz", "m.zip", "m.xz", "m.tar.xz", "m"]
)
@pytest.mark.parametrize("where", ["", "file", "memory"])
@pytest.mark.usefixtures("memory")
def test_there_and_back(model: Path, other: str, tmp_path: Path, name: str, where: str) -> None:
    target = {"": name, "file": f"file://{tmp_path}/{name}", "memory": f"memory://bucket/{name}"}[where]
    url = export_model("demo:v1", target)
    expected = name if "." in name else f"{name}.bentomodel"
    assert url == (f"memory://bucket/{expected}" if where == "memory" else str(tmp_path / expected))
    assert import_model(url, store=other) == ("demo", "v1")
    same(model, other)
    assert not os.listdir(os.environ["TMPDIR"])


@pytest.mark.parametrize("where", ["", "memory://bucket/"])
@pytest.mark.usefixtures("memory")
def test_folders(model: Path, other: str, tmp_path: Path, where: str) -> None:
    assert export_model("demo", f"{where}out", "folder") == (f"{where}out" if where else str(tmp_path / "out"))
    if not where:
        subprocess.run(["diff", "-r", str(model), "out"], check=True)
        assert Path("out/run.sh").stat().st_mode & 0o100
    assert import_model(f"{where}out", "folder", store=other) == ("demo", "v1")
    same(model, other, modes=not where)
    with pytest.raises(TargetExistsError, match="not empty"):
        # An existing directory gets a directory in it, like it gets an archive.
        export_model("demo", f"{where}out" if where else str(_filled(tmp_path)), "folder")


@pytest.mark.parametrize("name", ["a[1].tar", "a*.tar", "a?.tar", "b[2]/**/c{3}.tar"])
def test_names_that_are_no_patterns(home: Path, other: str, memory: fsspec.AbstractFileSystem, name: str) -> None:
    model = make_model(home / "bentoml" / "models", "demo:v1", {"odd[1]*?": b"odd"})
    export_model("demo:v1", "bucket", "tar", protocol="memory", subpath=name)
    export_model("demo:v1", "bucket", "folder", protocol="memory", subpath=f"folder/{name}")
    assert memory.isfile(f"/bucket/{name}")
    assert not [path for path in memory.store if ".part" in path]
    for form, path in (("tar", name), ("folder", f"folder/{name}")):
        import_model("bucket", form, protocol="memory", subpath=path, store=other, overwrite=True)
        same(model, other, modes=False)


@pytest.mark.parametrize(
    "url", ["ftp://host/m.tar?timeout=soon", "sftp://host/m.tar?timeout=", "s3://bucket/m.tar?read_timeout=soon"]
)
@pytest.mark.usefixtures("model")
def test_parameters_that_are_no_numbers(url: str) -> None:
    with pytest.raises(BadLocationError, match=r"parameters has no meaning there: .* float"):
        export_model("demo:v1", url)


@pytest.mark.parametrize("url", ["s3://bucket/m.tar?bogus=1", "ftp://host/?bogus=1", "sftp://me@host/m.tar?bogus=1"])
@pytest.mark.usefixtures("model")
def test_parameters_that_are_unknown(url: str) -> None:
    """The error does not show Python's wording."""
    with pytest.raises(BadLocationError, match=r": there is no parameter 'bogus'(; there (is|are) .*timeout)?$"):
        export_model("demo:v1", url)
    if url.startswith("s3"):
        with pytest.raises(BadLocationError, match=r"cannot be used as a store: there is no parameter 'bogus'$"):
            export_model("demo:v1", "m.tar", store=url)


def _filled(tmp_path: Path) -> Path:
    (tmp_path / "filled" / "demo-v1").mkdir(parents=True)
    (tmp_path / "filled" / "demo-v1" / "something").write_bytes(b"")
    return tmp_path / "filled"


@pytest.mark.usefixtures("model")
def test_a_folder_gets_a_file_named_after_the_tag(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert export_model("demo:v1", "there") == f"{tmp_path}/there/demo-v1.bentomodel"
    assert export_model("demo:v1", "new/", "gz") == f"{tmp_path}/new/demo-v1.tar.gz"
    assert export_model("demo:latest", "there", "folder") == f"{tmp_path}/there/demo-v1"
    assert sorted(os.listdir("there")) == ["demo-v1", "demo-v1.bentomodel"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("version", "shown"), [("v1", "demo:v1"), (None, "demo")])
def test_a_tag_of_bentomls(tmp_path: Path, version: str | None, shown: str) -> None:
    class BentoTag:
        """A tag like `bentoml.Tag`: its `path` is a method, and its version may be missing."""

        name = "demo"

        def __init__(self) -> None:
            self.version = version

        def __str__(self) -> str:
            return shown

        def path(self) -> str:
            return f"{self.name}/{self.version}"

    assert export_model(BentoTag(), "out.zip") == str(tmp_path / "out.zip")  # type: ignore[arg-type]


@pytest.mark.usefixtures("model")
def test_formats_by_name() -> None:
    export_model("demo:v1", "a.tar", "zip")
    assert zipfile.is_zipfile("a.tar")
    assert export_model("demo:v1", "b.tar", "bentomodel").endswith("/b.tar.bentomodel")
    with pytest.raises(BadLocationError, match=r"'rar' is not a known format.* tar.*, gz, .*folder"):
        export_model("demo:v1", "c", "rar")
    with pytest.raises(BadLocationError, match="'rar'"):
        import_model("a.tar", "rar")


@pytest.mark.parametrize(("form", "fits"), [*itertools.product(["bentomodel", "tar", "gz", "zip"], repeat=2)])
@pytest.mark.usefixtures("model")
def test_a_format_that_is_named_refuses_others(other: str, form: str, fits: str) -> None:
    export_model("demo:v1", "m", fits)
    name = "m.bentomodel" if fits == "bentomodel" else "m"
    # A .bentomodel may be any tar. Older ones may be compressed in another way.
    if form == fits or (form == "bentomodel" and fits in ("tar", "gz")):
        import_model(name, form, store=other)
    else:
        with pytest.raises(NotAModelError, match="not in the requested format"):
            import_model(name, form, store=other)
        assert os.listdir(other) == []


def test_importing_again(model: Path, other: str) -> None:
    export_model("demo:v1", "m.zip")
    for _ in range(2):
        assert import_model("m.zip", store=other) == ("demo", "v1")
    (Path(other) / "demo/v1/weights.bin").write_bytes(b"changed")
    with pytest.raises(ModelExistsError, match="other content"):
        import_model("m.zip", store=other)
    import_model("m.zip", store=other, overwrite=True)
    same(model, other)
    assert os.listdir(Path(other).parent / ".models.bentofs" / "sessions") == []


@pytest.mark.usefixtures("model")
def test_a_file_is_replaced_whole_or_not_at_all() -> None:
    Path("m.tar").write_bytes(b"the old one")
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse("m.tar"))

        def fail(_count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exporter.run(plan, fail)
        folder = exporter.plan(models.find("demo"), Location.parse("out"), "folder")
        with pytest.raises(KeyboardInterrupt):
            exporter.run(folder, fail)
    assert Path("m.tar").read_bytes() == b"the old one"
    assert sorted(os.listdir()) == ["home", "m.tar"]


@pytest.mark.parametrize("target", ["m.tar", "memory://b/m.tar", "memory://b/folder"])
def test_a_model_that_changes_meanwhile(model: Path, memory: fsspec.AbstractFileSystem, target: str) -> None:
    with opened_exporter(None) as (models, exporter):
        form = "folder" if target.endswith("folder") else None
        plan = exporter.plan(models.find("demo"), Location.parse(target), form)

        def change(_count: int) -> None:
            (model / "weights.bin").write_bytes(b"another")

        with pytest.raises(SourceChangedError):
            exporter.run(plan, change)
    assert os.listdir() == ["home"]
    assert memory.find("/") == []


@pytest.mark.usefixtures("model")
def test_a_link_stays_and_what_it_leads_to_is_replaced() -> None:
    Path("real").mkdir()
    Path("m.tar").symlink_to("real/m.tar")
    export_model("demo:v1", "m.tar")
    assert Path("m.tar").is_symlink()
    assert tarfile.is_tarfile("real/m.tar")


@pytest.mark.usefixtures("model")
def test_what_is_no_file_is_written_into() -> None:
    os.mkfifo("pipe")
    reader = subprocess.Popen(["tar", "tf", "pipe"], stdout=subprocess.PIPE)
    export_model("demo:v1", "pipe", "tar")
    assert b"weights.bin" in reader.communicate(timeout=20)[0]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    with pytest.raises(NoSpaceError):
        export_model("demo:v1", "/dev/full", "tar")


@pytest.mark.usefixtures("model")
def test_sums(other: str) -> None:
    for target in ("m.tar", "memory://b/m.tar"):
        export_model("demo:v1", target, sha256=True)
    subprocess.run(["sha256sum", "-c", "m.tar.sha256"], check=True, stdout=subprocess.DEVNULL)
    memory = fsspec.filesystem("memory")
    assert memory.cat("/b/m.tar.sha256") == Path("m.tar.sha256").read_bytes()
    assert import_model("m.tar", store=other)
    memory.store.clear()


def test_an_archive_and_its_sum_take_one_read(model: Path, tmp_path: Path) -> None:
    storage = CountingStorage(model.parents[1])
    index = Index(tmp_path / "index.sqlite")
    archives = Archives(storage, index)
    exporter = Exporter(ModelStore(storage), archives)
    for format_name in ("tar", "bentomodel"):
        plan = exporter.plan(Tag("demo", "v1"), Location.parse("out/"), format_name)
        done = exporter.run(plan, lambda _count: None, sha256=True)
        assert done.sha256 == hashlib.sha256(Path(done.url).read_bytes()).hexdigest()
        assert storage.count("weights.bin") == (model / "weights.bin").stat().st_size
        storage.bytes_read.clear()
    again = exporter.run(plan, lambda _count: None, sha256=True)
    assert again.sha256 == done.sha256
    assert storage.count("weights.bin") == (model / "weights.bin").stat().st_size, "the sum is known"
    for each in (exporter, archives, index):
        each.close()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("where", ["", "memory://b/"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["{}  m.tar\n", "SHA256          {}       C:\\x\\m.tar\r\n", "cut short: {:.40}"])
def test_sums_that_do_not_fit(
    other: str, memory: fsspec.AbstractFileSystem, where: str, encoding: str, form: str
) -> None:
    export_model("demo:v1", f"{where}m.tar")
    wrong = form.format(hashlib.sha256(b"").hexdigest()).encode(encoding)
    memory.pipe("/b/m.tar.sha256", wrong)
    Path("m.tar.sha256").write_bytes(wrong)
    with pytest.raises(DamagedArchiveError, match="SHA-256"):
        import_model(f"{where}m.tar", store=other)
    assert not os.path.exists(f"{other}/demo")
    memory.store.clear()


@pytest.mark.usefixtures("model")
def test_sums_that_nobody_may_read(other: str) -> None:
    """Unreadable sums may be wrong ones. A directory of that name is no file of sums."""
    export_model("demo:v1", "m.tar")
    Path("m.tar.sha256").symlink_to("m.tar.sha256")
    with pytest.raises(StoreUnreadableError, match=r"m\.tar\.sha256 cannot be read"):
        import_model("m.tar", store=other)
    Path("m.tar.sha256").unlink()
    Path("m.tar.sha256").mkdir()
    import_model("m.tar", store=other)


@pytest.mark.parametrize("where", ["", "memory://b/"])
def test_what_is_no_model(other: str, memory: fsspec.AbstractFileSystem, where: str) -> None:
    def put(name: str, content: bytes) -> str:
        if where:
            memory.pipe(f"/b/{name}", content)
        else:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_bytes(content)
        return f"{where}{name}"

    with pytest.raises(NotAModelError):
        import_model(put("junk", b"junk" * 1000), store=other)
    with pytest.raises(NotFoundError):
        import_model(f"{where}missing", store=other)
    with pytest.raises(NotFoundError):
        import_model(f"{where}missing", "folder", store=other)
    put("folder/file", b"x")
    with pytest.raises(NotAModelError, match=r"no model.yaml"):
        import_model(f"{where}folder", "folder", store=other)
    assert os.listdir(other) == []


@pytest.mark.parametrize("where", ["", "memory://b/"])
@pytest.mark.usefixtures("model")
def test_a_damaged_archive(other: str, memory: fsspec.AbstractFileSystem, where: str) -> None:
    for name in ("m.bentomodel", "m.zip", "m.tar.gz", "m.tar"):
        export_model("demo:v1", f"{where}{name}")
        content = memory.cat(f"/b/{name}") if where else Path(name).read_bytes()
        cut = content[: len(content) * 2 // 3]
        if where:
            memory.pipe(f"/b/{name}", cut)
        else:
            Path(name).write_bytes(cut)
        with pytest.raises(DamagedArchiveError):
            import_model(f"{where}{name}", store=other)
    assert os.listdir(other) == []


@pytest.mark.parametrize("where", ["", "memory://b/"])
@pytest.mark.usefixtures("memory")
def test_a_zip_that_only_its_directory_explains(model: Path, other: str, where: str) -> None:
    """The members are in another order than the directory. Bytes that came long ago are read again."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(model.rglob("*"), reverse=True):
            archive.write(path, str(path.relative_to(model)))
        archive.writestr("padding", os.urandom(9 << 20))
        archive.filelist.reverse()
    if where:
        fsspec.filesystem("memory").pipe("/b/m.zip", content.getvalue())
    else:
        Path("m.zip").write_bytes(content.getvalue())
    import_model(f"{where}m.zip", store=other)
    os.unlink(Path(other) / "demo/v1/padding")
    same(model, other)


def test_a_folder_with_links(model: Path, other: str) -> None:
    (model / "link").symlink_to("weights.bin")
    import_model(str(model), store=other)  # it detects the directory by itself
    assert (Path(other) / "demo/v1/link").read_bytes() == _FILES["weights.bin"]
    assert not (Path(other) / "demo/v1/link").is_symlink()
    (model / "out").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeMemberError):
        import_model(str(model), "folder", store=other, overwrite=True)


@pytest.mark.usefixtures("model")
def test_given_up() -> None:
    stop = threading.Event()
    with opened_exporter(None) as (models, exporter):
        assert isinstance(exporter, Exporter)
        plan = exporter.plan(models.find("demo"), Location.parse("m.tar"))
        with pytest.raises(CancelledError):
            exporter.run(plan, lambda _count: stop.set(), stops=[stop])
    assert os.listdir() == ["home"]


@pytest.mark.usefixtures("model")
def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    name = "模" * 83 + ".tar"  # 253 bytes
    assert export_model("demo:v1", name) == str(tmp_path / name)
    export_model("demo:v1", "模" * 84, "folder")
    assert sorted(path for path in os.listdir(tmp_path) if "模" in path) == sorted([name, "模" * 84])


def test_into_a_folder_that_may_be_written_but_not_read() -> None:
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        (folder / "drop").mkdir(mode=0o300)
        LocalEndpoint().write(str(folder / "drop" / "m.tar"), Literal(b"content"), lambda _count: None)
        assert (folder / "drop" / "m.tar").read_bytes() == b"content"


def test_a_file_that_cannot_be_read(other: str) -> None:
    with pytest.raises(StoreUnreadableError, match="/proc/self/mem cannot be read"):
        import_model("/proc/self/mem", store=other)

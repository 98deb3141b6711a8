"""Extended attributes, as real tools read, set and copy them, with both engines."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import verify_model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import Mounted, make_model, run
from tests.incoming import made_tar

LABELS = {
    "stage": "production",
    "team name": "größe = 1\n",
    "app.kubernetes.io/name": "iris",
    "50%": "",
    "schlüssel": "\x00\x01",
}
CONTEXT = {
    "framework_name": "sklearn",
    "framework_versions": {"scikit-learn": "1.5.0", "bad": ["no text"]},
    "bentoml_version": "1.4.40",
    "python_version": "3.12.1",
}
OF_THE_MODEL = {
    "user.bentoml.tag": "m:v1",
    "user.bentoml.module": "bentoml.sklearn",
    "user.bentoml.creation_time": "2026-01-02T03:04:05.678901+00:00",
    "user.bentoml.framework": "sklearn",
    "user.bentoml.framework.scikit-learn": "1.5.0",
    "user.bentoml.bentoml_version": "1.4.40",
    "user.bentoml.python_version": "3.12.1",
    "user.bentoml.label.stage": "production",
    "user.bentoml.label.team%20name": "größe = 1\n",
    "user.bentoml.label.app.kubernetes.io/name": "iris",
    "user.bentoml.label.50%25": "",
    "user.bentoml.label.schl%C3%BCssel": "\x00\x01",
}


def described_model(store: Path, tag: str, labels: dict[str, str], files: dict[str | bytes, bytes | int]) -> None:
    """Make a model whose `model.yaml` names a framework."""
    folder = make_model(store, tag, files, labels=labels)
    look = folder.stat()
    text = yaml.safe_load((folder / "model.yaml").read_text())
    text |= {"module": "bentoml.sklearn", "context": CONTEXT}
    (folder / "model.yaml").write_text(yaml.safe_dump(text, allow_unicode=True))
    os.utime(folder, ns=(look.st_atime_ns, look.st_mtime_ns))


@pytest.fixture(scope="module", params=["kernel", "libfuse2"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    base = tmp_path_factory.mktemp("xattrs")
    store = base / "bentoml" / "models"
    described_model(store, "m:v1", LABELS, {"w.bin": os.urandom(300_000), "a/b.txt": b"text " * 5000})
    many = {f"label-{number:05}": "value" * 10 for number in range(1000)} | {"long": "x" * 70_000}
    described_model(store, "many:v1", many, {})
    # A context of any shape is no reason to refuse a model, or an attribute of it.
    for number, context in enumerate(
        [[1], {"framework_name": {}, "framework_versions": "no"}, {"framework_name": 1e9}]
    ):
        folder = make_model(store, f"odd:v{number}", {})
        (folder / "model.yaml").open("a").write(f"context: {context!r}\n")
        os.utime(folder, (1, 1))
    with Mounted(store, base, options=["--engine", request.param]) as mounted:
        yield mounted


def attributes(path: Path) -> dict[str, str]:
    """Return all attributes as getfattr prints them, its escapes undone."""
    printed = run("getfattr", "--absolute-names", "-d", "-m", "-", "-e", "hex", path).stdout
    lines = (line.partition("=") for line in printed.splitlines() if line and not line.startswith("#"))
    return {name: bytes.fromhex(value[2:]).decode() for name, _, value in lines}


def test_a_model_and_its_archives_tell_of_themselves(mount: Mounted) -> None:
    version = mount.path / "models" / "m" / "v1"
    for path in (version, version / "files", version / "files" / "a", mount.path / "by-format" / "folder" / "m" / "v1"):
        assert attributes(path) == OF_THE_MODEL
    stored = mount.archive("m:v1", ".tar")
    ours = {"user.bentofs.format": "tar", "user.bentofs.size_is": "arithmetic"}
    assert attributes(stored) == OF_THE_MODEL | ours
    assert attributes(mount.path / "by-format" / "tar" / "m" / "m-v1.tar") == OF_THE_MODEL | ours
    sha256 = Path(f"{stored}.sha256").read_text().split()[0]
    assert sha256 == run("sha256sum", stored).stdout.split()[0]
    assert attributes(stored)["user.bentofs.sha256"] == sha256
    for path in (mount.path, mount.path / "README.txt", mount.path / "models", version / "SHA256SUMS"):
        assert attributes(path) == {}
        assert code(lambda path=path: os.getxattr(path, "user.bentoml.tag")) == errno.ENODATA


def test_a_compressed_size_is_measured_by_stat_and_not_by_getfattr(mount: Mounted) -> None:
    path = mount.path / "by-format" / "zip" / "many"
    for _ in range(2):
        assert os.listdir(path) == ["many-v1.zip"]
    archive = path / "many-v1.zip"
    assert attributes(archive)["user.bentofs.size_is"] == "measured"  # by the lookup that precedes getxattr


def test_the_recorded_checksum_of_a_file(mount: Mounted) -> None:
    file = mount.path / "models" / "m" / "v1" / "files" / "w.bin"
    baseline = Baseline(mount.base / "state" / "bentofs" / "digests.sqlite")
    verify_model(ModelStore(LocalStorage(str(mount.store))), baseline, Tag("m", "v1"))
    baseline.close()
    assert attributes(file) == OF_THE_MODEL | {"user.bentofs.recorded_sha256": run("sha256sum", file).stdout.split()[0]}


def test_labels_beyond_the_room_of_a_disk_are_counted(mount: Mounted, tmp_path: Path) -> None:
    """All attributes together fit into the one block that ext4 has for them, so that every copy succeeds."""
    archive = mount.archive("many:v1", ".tar")
    found = attributes(archive)
    kept = [name for name in found if name.startswith("user.bentoml.label.")]
    assert kept == sorted(kept)
    assert 10 < len(kept) == 1001 - int(found["user.bentofs.labels_left_out"])
    with disk_of_ext4(tmp_path) as disk:
        run("cp", "-a", archive, disk)
        assert attributes(disk / archive.name) == found
        run("rsync", "-aX", archive, disk / "sent.tar")
        assert attributes(disk / "sent.tar") == found
        shutil.copy2(archive, disk / "copied.tar")  # ENOSPC would be raised


class disk_of_ext4:  # noqa: N801 - a context manager, used like a function
    """A small ext4 with blocks of 4096 bytes, as on disks."""

    def __init__(self, base: Path) -> None:
        self._image, self._path = base / "image", base / "disk"

    def __enter__(self) -> Path:
        self._path.mkdir()
        run("truncate", "-s", "16M", self._image)
        run("mkfs.ext4", "-q", "-b", "4096", self._image)
        run("mount", "-o", "loop", self._image, self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        run("umount", self._path)


def test_odd_contexts(mount: Mounted) -> None:
    for number in range(3):
        found = attributes(mount.archive(f"odd:v{number}", ".tar"))
        assert found["user.bentoml.tag"] == f"odd:v{number}"
    assert found["user.bentoml.framework"] == "1000000000.0"


def test_other_namespaces_are_answered_at_once(mount: Mounted) -> None:
    """ENOTSUP: `ls -l` then asks no more on this mount. ENODATA would make it ask for each file."""
    for path in (mount.archive("m:v1", ".tar"), mount.path / "incoming"):
        for name in ("security.capability", "security.selinux", "system.posix_acl_access", "trusted.x"):
            assert code(lambda path=path, name=name: os.getxattr(path, name)) == errno.ENOTSUP
    traced = run("strace", "-f", "-e", "trace=getxattr,lgetxattr,listxattr,llistxattr", "ls", "-lR", mount.path).stderr
    assert traced.count("xattr(") <= 6, traced
    assert code(lambda: os.getxattr(mount.archive("m:v1", ".tar"), "user." + "x" * 250)) == errno.ENODATA


def test_attributes_of_uploads_are_accepted_and_not_kept(mount: Mounted, tmp_path: Path) -> None:
    """Security attributes and ACLs, too: the tools fail for a file if one of its attributes is refused."""
    for tool in ("cp -a", "rsync -aX"):
        source = with_attributes(made_tar(tmp_path / tool, f"up:{tool.split()[0]}", {"run.sh": b"#!/bin/sh\n"}))
        done = run(*tool.split(), source, mount.path / "incoming")
        assert done.stderr == ""
        assert mount.shows(f"up:{tool.split()[0]}")
        assert attributes(mount.path / "incoming" / source.name) == {}


def with_attributes(source: Path) -> Path:
    """Give a file attributes of all kinds."""
    os.setxattr(source, "user.origin", b"https://example.org")
    os.setxattr(source, "user.DOSATTRIB", b"0x20")
    run("setfattr", "-n", "security.x", "-v", "1", source)
    run("setfattr", "-n", "trusted.x", "-v", "1", source)
    run("setfattr", "-n", "system.posix_acl_access", "-v", ACL, source)
    return source


# Version 2: the owner rwx, user 65534 r--, the group ---, mask r--, others ---.
ACL = "0x0200000001000700ffffffff02000400feff000004000000ffffffff10000400ffffffff20000000ffffffff"


def test_an_access_acl_is_used_like_a_mode(mount: Mounted) -> None:
    """cp sets the ACL instead of the mode. A model's executable bits must survive that."""
    file = mount.path / "incoming" / ".folder" / "x"
    file.parent.mkdir()
    file.write_bytes(b"x")
    assert not file.stat().st_mode & 0o100
    run("setfattr", "-n", "system.posix_acl_access", "-v", ACL, file)
    assert file.stat().st_mode & 0o100
    assert code(lambda: os.setxattr(file, "system.posix_acl_access", b"\2\0\0\0\1")) == errno.EINVAL
    shutil.rmtree(file.parent)


def test_changes_by_name(mount: Mounted) -> None:
    upload = mount.path / "incoming" / ".upload"
    upload.write_bytes(b"")
    os.setxattr(upload, "user.x", b"v" * 65536)
    os.setxattr(upload, "user.x", b"")
    assert code(lambda: os.setxattr(upload, "user.x", b"v", os.XATTR_REPLACE)) == errno.ENODATA
    assert code(lambda: os.removexattr(upload, "user.x")) == errno.ENODATA
    assert code(lambda: os.getxattr(upload, "user.DOSATTRIB")) == errno.ENODATA
    run("setfattr", "-x", "system.posix_acl_access", upload)
    archive = mount.archive("m:v1", ".tar")
    for path in (archive, archive.parent, mount.path):
        assert code(lambda path=path: os.setxattr(path, "user.x", b"")) == errno.EROFS
        assert code(lambda path=path: os.removexattr(path, "user.bentoml.tag")) == errno.EROFS
    upload.unlink()


def code(act: object) -> int | None:
    """Return the errno of a call; None if it succeeds."""
    assert callable(act)
    try:
        act()
    except OSError as error:
        return error.errno
    return None

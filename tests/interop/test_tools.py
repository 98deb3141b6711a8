"""Common tools as judges of archives that are read through a real mount."""

import mmap
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import Mounted, ended, make_model, run, wait_until
from tests.interop.conftest import SshServer
from tests.interop.reading import check_same_tree, check_tarfile, check_zipfile

TAG = "tools:v1"
SUFFIXES = (".bentomodel", ".tar", ".tar.gz", ".zip")
TARS = (".bentomodel", ".tar", ".tar.gz")
SPARSE = 8 << 20

FILES: dict[str | bytes, bytes | int] = {
    "weights/random.bin": random.Random(1).randbytes(20_000_003),
    "weights/zeros.bin": SPARSE,
    "text/vocabulary.txt": b"".join(b"token-%d\n" % number for number in range(200_000)),
    "empty.bin": b"",
    "an empty folder/": b"",
    "names/Ünïcödé 模型.txt": b"any script",
    'names/it\'s a "quoted" name.txt': b"quotes",
    "names/" + "long-" * 40 + ".txt": b"longer than a tar header's 100 characters",
    "run.sh": b"#!/bin/sh\necho it runs\n",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder in the store."""
    store = tmp_path_factory.mktemp("tools") / "models"
    make_model(store, "other.tar.gz:v1.zip", {"a.bin": b"a" * 70_000})
    make_model(store, "tools:v0", {"a.bin": b"b" * 10})
    return make_model(store, TAG, FILES, executable=["run.sh"])


@pytest.fixture(scope="module", params=["auto", "never"])
def mount(
    original: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    options = ["--compression", request.param]
    with Mounted(original.parent.parent, tmp_path_factory.mktemp("mount"), options=options) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def whole(mount: Mounted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Each archive's bytes, read from first to last. The tests below judge their content with the tools."""
    target = tmp_path_factory.mktemp("whole")
    contents = {}
    for suffix in SUFFIXES:
        run("cp", mount.archive(TAG, suffix), target / f"whole{suffix}")
        contents[suffix] = (target / f"whole{suffix}").read_bytes()
        assert len(contents[suffix]) == mount.archive(TAG, suffix).stat().st_size
    return contents


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
@pytest.mark.parametrize("suffix", TARS)
def test_tar(mount: Mounted, original: Path, tool: str, suffix: str, tmp_path: Path) -> None:
    names = run(tool, "-tf", mount.archive(TAG, suffix)).stdout.splitlines()
    assert names[0] == "model.yaml"
    assert "weights/random.bin" in names
    run(tool, "-xf", mount.archive(TAG, suffix), "-C", tmp_path)
    check_same_tree(original, tmp_path)
    assert os.access(tmp_path / "run.sh", os.X_OK)


def test_bsdtar_reads_zip(mount: Mounted, original: Path, tmp_path: Path) -> None:
    run("bsdtar", "-xf", mount.archive(TAG, ".zip"), "-C", tmp_path)
    check_same_tree(original, tmp_path)


def test_unzip(mount: Mounted, original: Path, tmp_path: Path) -> None:
    archive = mount.archive(TAG, ".zip")
    assert "No errors detected" in run("unzip", "-t", archive).stdout
    run("unzip", "-q", archive, "-d", tmp_path)
    check_same_tree(original, tmp_path)
    assert os.access(tmp_path / "run.sh", os.X_OK)


def test_zipinfo(mount: Mounted, original: Path) -> None:
    names = run("zipinfo", "-1", mount.archive(TAG, ".zip")).stdout.splitlines()
    members = [path.relative_to(original).as_posix() + "/" * path.is_dir() for path in original.rglob("*")]
    assert names[0] == "model.yaml"
    assert sorted(names) == sorted(members)
    details = run("zipinfo", "-v", mount.archive(TAG, ".zip")).stdout
    assert "warning" not in details.lower()


@pytest.mark.parametrize("suffix", TARS)
def test_python_tarfile(mount: Mounted, original: Path, suffix: str) -> None:
    check_tarfile(mount.archive(TAG, suffix), original)


def test_python_zipfile(mount: Mounted, original: Path) -> None:
    check_zipfile(mount.archive(TAG, ".zip"), original)


def test_xz(mount: Mounted) -> None:
    archive = mount.archive(TAG, ".bentomodel")
    run("xz", "--test", "--format=xz", archive)
    totals = run("xz", "--robot", "--list", "--format=xz", archive).stdout.splitlines()[-1].split("\t")
    assert totals[0] == "totals"
    assert int(totals[3]) == archive.stat().st_size
    assert int(totals[4]) == mount.archive(TAG, ".tar").stat().st_size


def test_gzip(mount: Mounted) -> None:
    archive = mount.archive(TAG, ".tar.gz")
    run("gzip", "-t", archive)
    assert int(run("gzip", "-l", archive).stdout.split()[5]) == mount.archive(TAG, ".tar").stat().st_size


def test_pigz(mount: Mounted) -> None:
    run("pigz", "-t", mount.archive(TAG, ".tar.gz"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_7z(mount: Mounted, suffix: str) -> None:
    assert "Everything is Ok" in run("7z", "t", mount.archive(TAG, suffix)).stdout


@pytest.mark.parametrize("tag", [TAG, "other.tar.gz:v1.zip"])
def test_sha256sum(mount: Mounted, tag: str) -> None:
    folder = mount.archive(tag, "").parent
    checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder).stdout
    assert sorted(checked.splitlines()) == sorted(f"{mount.archive(tag, suffix).name}: OK" for suffix in SUFFIXES)
    for suffix in SUFFIXES:
        archive = mount.archive(tag, suffix)
        assert (
            run("sha256sum", "--check", "--strict", f"{archive.name}.sha256", cwd=folder).stdout
            == f"{archive.name}: OK\n"
        )


def test_sums_have_their_size_before_they_are_computed(mount: Mounted) -> None:
    sums = mount.archive("tools:v0", "").parent / "SHA256SUMS"
    size = sums.stat().st_size
    assert size == len(sums.read_bytes())


@pytest.mark.parametrize("folder", ["by-format/bentomodel", "by-format/folder", "models"])
def test_second_rsync_transfers_nothing(original: Path, folder: str, tmp_path: Path) -> None:
    mount = Mounted(original.parent.parent, tmp_path / "mount")
    target = tmp_path / "backup"
    with mount:
        assert "tools" in run("rsync", "-ai", f"{mount.path}/{folder}/", target).stdout
        assert run("rsync", "-ai", f"{mount.path}/{folder}/", target).stdout == ""
    with mount:
        assert run("rsync", "-ai", f"{mount.path}/{folder}/", target).stdout == "", "after a remount"
        assert run("rsync", "-aic", f"{mount.path}/{folder}/", target).stdout == "", "by checksum"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rsync_resumes(mount: Mounted, whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    archive, copy = mount.archive(TAG, suffix), tmp_path / f"copy{suffix}"

    def copied() -> int:
        return sum(path.stat().st_size for path in tmp_path.iterdir())

    first = subprocess.Popen(
        ["rsync", "-a", "--partial", "--bwlimit=10m", str(archive), str(copy)], stderr=subprocess.DEVNULL
    )
    with ended(first):
        wait_until(lambda: copied() > 3_000_000, 30, "rsync has copied 3 MB")
        first.terminate()
        assert first.wait(30) == 20, "interrupted by a signal"
    wait_until(copy.exists, 30, "rsync's receiver, which ends later, has kept the part")
    had = copy.stat().st_size
    assert 0 < had < len(whole[suffix])

    stats = run("rsync", "-a", "--append-verify", "--stats", archive, copy).stdout
    literal = next(line for line in stats.splitlines() if line.startswith("Literal data:"))
    assert int(literal.split()[2].replace(",", "")) <= len(whole[suffix]) - had
    assert copy.read_bytes() == whole[suffix]


def test_scp(mount: Mounted, whole: dict[str, bytes], ssh_server: SshServer, tmp_path: Path) -> None:
    """scp works both ways: the local scp reads the mount, and the server's side does."""
    archive = mount.archive(TAG, ".bentomodel")
    user = run("id", "-un").stdout.strip()
    run("scp", *ssh_server.options, archive, f"{user}@127.0.0.1:{tmp_path}/sent")
    assert (tmp_path / "sent").read_bytes() == whole[".bentomodel"]
    run("scp", *ssh_server.options, f"{user}@127.0.0.1:{archive}", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == whole[".bentomodel"]


def test_rsync_over_ssh(mount: Mounted, ssh_server: SshServer, tmp_path: Path) -> None:
    user = run("id", "-un").stdout.strip()
    command = ["rsync", "-ai", "-e", " ".join(["ssh", *ssh_server.options])]
    source, target = f"{mount.path}/by-format/zip/", f"{user}@127.0.0.1:{tmp_path}/backup/"
    assert "tools-v1.zip" in run(*command, source, target).stdout
    assert run(*command, source, target).stdout == ""


def test_cp_sparse(mount: Mounted, whole: dict[str, bytes], tmp_path: Path) -> None:
    run("cp", "--sparse=always", mount.archive(TAG, ".tar"), tmp_path / "sparse.tar")
    assert (tmp_path / "sparse.tar").read_bytes() == whole[".tar"]
    on_disk = (tmp_path / "sparse.tar").stat().st_blocks * 512
    assert on_disk < len(whole[".tar"]) - SPARSE // 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_dd_skip(mount: Mounted, whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    run("dd", f"if={mount.archive(TAG, suffix)}", f"of={tmp_path}/part", "bs=1009", "skip=12345", "count=777")
    assert (tmp_path / "part").read_bytes() == whole[suffix][1009 * 12345 : 1009 * (12345 + 777)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mmap(mount: Mounted, whole: dict[str, bytes], suffix: str) -> None:
    chance = random.Random(2)
    with mount.archive(TAG, suffix).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped) == len(whole[suffix])
        for _ in range(200):
            begin = chance.randrange(len(mapped))
            end = begin + chance.randrange(300_000)
            assert mapped[begin:end] == whole[suffix][begin:end]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tail(mount: Mounted, whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    for count in (1, 1000, 1_000_003):
        with (tmp_path / "end").open("wb") as file:
            subprocess.run(["tail", "-c", str(count), mount.archive(TAG, suffix)], stdout=file, timeout=60, check=True)
        assert (tmp_path / "end").read_bytes() == whole[suffix][-count:]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parallel_readers(mount: Mounted, original: Path, whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    """Parallel readers agree on a mount of their own, whose pages the kernel has not cached yet."""
    readers = 16
    together = threading.Barrier(readers, timeout=30)
    with Mounted(original.parent.parent, tmp_path / "mount", options=mount.options) as fresh:

        def read(seed: int) -> int:
            chance = random.Random(seed)
            wrong = 0
            descriptor = os.open(fresh.archive(TAG, suffix), os.O_RDONLY)
            try:
                together.wait()
                for _ in range(100):
                    offset = chance.randrange(len(whole[suffix]))
                    size = chance.choice((1, 4096, 65_536, 131_072, 1_000_000))
                    wrong += os.pread(descriptor, size, offset) != whole[suffix][offset : offset + size]
            finally:
                os.close(descriptor)
            return wrong

        with ThreadPoolExecutor(readers) as pool:
            assert list(pool.map(read, range(readers))) == [0] * readers


def test_files_are_the_model(mount: Mounted, original: Path) -> None:
    check_same_tree(original, mount.archive(TAG, "").parent / "files")
    check_same_tree(original, mount.path / "by-format" / "folder" / "tools" / "v1")


def test_names_for_scripts(mount: Mounted, whole: dict[str, bytes], tmp_path: Path) -> None:
    folder = mount.path / "models" / "tools"
    for suffix in SUFFIXES:
        run("cp", folder / f"latest{suffix}", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == whole[suffix]
        run("cmp", mount.path / "by-format" / suffix[1:] / "tools" / f"tools-v1{suffix}", tmp_path / "copy")
    assert os.readlink(folder / "latest") == "v1"


def test_find_du_and_ls_make_sense(mount: Mounted) -> None:
    archive = mount.archive(TAG, ".tar")
    size = archive.stat().st_size
    assert int(run("du", "--apparent-size", "-b", archive).stdout.split()[0]) == size
    assert abs(int(run("du", "-B1", archive).stdout.split()[0]) - size) < 1 << 20
    found = run("find", mount.path / "models", "-name", "*.tar", "-size", f"{size}c").stdout.split()
    assert found == [str(archive)]
    inodes = run("find", mount.path, "-type", "f", "-printf", "%i\\n").stdout.split()
    assert "0" not in inodes
    run("ls", "-lR", mount.path)

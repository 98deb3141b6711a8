"""The meaning of names in incoming/."""

import pytest

from bentofs.mount.incoming.names import final_path, is_note, is_on_its_way, may_be_archive, must_be_archive


@pytest.mark.parametrize(
    ("path", "final"),
    [
        ("m-v1.bentomodel", "m-v1.bentomodel"),
        (".m-v1.bentomodel.a1B2c3", "m-v1.bentomodel"),
        (".~tmp~/m-v1.zip", "m-v1.zip"),
        ("iris/.rsync-partial/m-v1.zip", "iris/m-v1.zip"),
        ("m-v1.zip.part", "m-v1.zip"),
        ("m-v1.zip.crdownload", "m-v1.zip"),
        ("m-v1.zip.filepart", "m-v1.zip"),
        ("a/b/.m.tar.gz.XXXXXX", "a/b/m.tar.gz"),
    ],
)
def test_the_name_it_will_get(path: str, final: str) -> None:
    assert final_path(path) == final
    assert is_on_its_way(path) == (path != final)


def test_what_is_imported() -> None:
    assert must_be_archive("anything")
    assert must_be_archive("m.zip")
    assert must_be_archive("a/m.bentomodel")
    assert may_be_archive("a/m.zip")
    assert not must_be_archive("a/m.zip")  # it may be a model's own file
    assert not may_be_archive("a/weights.bin")
    assert not may_be_archive("a/.weights.bin.a1B2c3")
    assert may_be_archive("a/.m.tar.gz.a1B2c3")


@pytest.mark.parametrize("path", ["m.zip.error", "m.zip.sha256", "SHA256SUMS", "a/SHA256SUMS"])
def test_notes(path: str) -> None:
    assert is_note(path)
    assert not may_be_archive(path)

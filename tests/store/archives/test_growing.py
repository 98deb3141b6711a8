"""Archives that are given while they are measured: the same bytes, and each chunk compressed once."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bentofs.store.archives import archives as archives_module
from bentofs.store.archives import chunk_sizes
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.growing import Growing
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.clients.part_buffers import Part, PartBuffers, PartCutter
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.gap import Block, CannotGrowError, Gap
from bentofs.store.formats.write.deflate import Judgement
from bentofs.store.formats.write.registry import BENTOMODEL, TAR, TAR_GZ, ZIP, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from tests.harness import make_model, remove_model
from tests.store.content import whole
from tests.store.counting import CountingStorage
from tests.waiting import wait_until_settled

_KIB, _MIB = 1 << 10, 1 << 20
_DICE = random.Random(5)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives_module, "_GROWS_FROM", 0)


def _content(size: int, kind: str) -> bytes:
    return _DICE.randbytes(size) if kind == "random" else b"".join(b"%d lines\n" % at for at in range(size // 6))[:size]


def _model(storage: CountingStorage) -> Model:
    return ModelStore(storage).model(Tag("iris", "v1"))


def _taken(blocks: Iterable[Block]) -> bytes:
    """Return a whole stream. A gap must be filled before the next one comes."""
    taken: list[bytes | Gap] = []
    for block in blocks:
        if isinstance(block, Gap):
            assert all(each.content is not None for each in taken if isinstance(each, Gap))
        taken.append(block if isinstance(block, Gap) else bytes(block))
    for each in taken:
        assert not isinstance(each, Gap) or len(each.content or b"") == each.length
    return b"".join((each.content or b"") if isinstance(each, Gap) else each for each in taken)


_sizes = st.one_of(
    st.sampled_from([0, 1, 511, 512, 256 * _KIB - 1, 256 * _KIB, _MIB, _MIB + 1]), st.integers(0, 3 * _MIB)
)
_files = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "model.yaml.d", "ä", "~"]), min_size=1, max_size=2).map("/".join),
    st.tuples(_sizes, st.sampled_from(["random", "text", "text"])),
    min_size=1,
    max_size=6,
).filter(lambda files: not any(other.startswith(f"{name}/") for name in files for other in files))


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=_files, stored=st.booleans())
def test_the_bytes_are_those_of_the_archive(
    store: Path, tmp_path: Path, kind: Format, files: dict[str, tuple[int, str]], stored: bool
) -> None:
    make_model(
        store, "iris:v1", dict[str | bytes, bytes | int]((name, _content(*content)) for name, content in files.items())
    )
    storage = CountingStorage(store)
    one, other = (Index(tmp_path / name / f"{_DICE.random()}.sqlite") for name in ("one", "other"))
    growing, alone = Archives(storage, one, Compression.AUTO), Archives(storage, other, Compression.AUTO)
    try:
        with pytest.MonkeyPatch.context() as patch:
            if stored:  # some files are too large to be compressed
                patch.setattr("bentofs.store.archives.compression.MAX_FILE", 2 * _MIB)
            model = _model(storage)
            grown = growing.grow(model, kind)
            assume(grown is not None)
            assert grown is not None
            expected = whole(alone.open(model, kind))
            assert _taken(grown.blocks()) == expected
            assert len(expected) <= grown.most
            assert whole(grown.archive) == expected
            assert whole(growing.open(model, kind)) == expected
    finally:
        for each in (growing, alone, one, other):
            each.close()
        remove_model(store, "iris:v1")


@pytest.fixture
def storage(store: Path) -> CountingStorage:
    texts = {f"small/{number:03}": _content(9000, "text") for number in range(300)}
    make_model(store, "iris:v1", {"large": _content(12 * _MIB + 5, "text"), "zz": _content(3 * _MIB, "text"), **texts})
    wait_until_settled(store)
    return CountingStorage(store)


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
def test_each_byte_is_read_once_and_the_measurement_is_kept(
    storage: CountingStorage, index: Index, kind: Format
) -> None:
    model = _model(storage)
    archives = Archives(storage, index, Compression.AUTO)
    grown = _grown(archives, model, kind)
    storage.bytes_read.clear()
    length = len(_taken(grown.blocks()))
    windows = 32 * _KIB * 15
    assert model.size <= storage.count() <= model.size + windows + 20 * 9000, "a file that two runs share is read twice"
    assert archives.is_length_known(model, kind)
    assert archives.grow(model, kind) is None, "its length is known"
    archives.close()
    again = Archives(storage, index, Compression.AUTO)
    assert again.is_length_known(model, kind)
    assert again.length(model, kind) == length
    again.close()


def _grown(archives: Archives, model: Model, kind: Format) -> Growing:
    grown = archives.grow(model, kind)
    assert grown is not None
    return grown


def test_what_cannot_grow(storage: CountingStorage, store: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(storage)
    for compression in (Compression.ALWAYS, Compression.NEVER):
        archives = Archives(storage, index, compression)
        assert archives.grow(model, TAR_GZ) is None
        archives.close()
    archives = Archives(storage, index, Compression.AUTO)
    assert archives.grow(model, TAR) is None
    assert archives.grow(model, BENTOMODEL) is None
    make_model(store, "weights:v1", {"w": _DICE.randbytes(3 * _MIB)})
    weights = ModelStore(storage).model(Tag("weights", "v1"))
    assert archives.grow(weights, ZIP) is None, "nothing in it is compressed"
    monkeypatch.setattr(chunk_sizes, "judge", lambda _read, _length: Judgement(1, True))
    make_model(store, "odd:v1", {"w": _DICE.randbytes(3 * _MIB)})
    wait_until_settled(store)
    odd = ModelStore(storage).model(Tag("odd", "v1"))
    with pytest.raises(CannotGrowError):
        _taken(_grown(archives, odd, ZIP).blocks())
    assert whole(archives.open(odd, ZIP))[:2] == b"PK"
    assert archives.grow(odd, TAR_GZ) is None, "it is known by now that nothing in it is compressed"
    archives.close()


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
def test_a_model_that_changes_meanwhile(storage: CountingStorage, store: Path, index: Index, kind: Format) -> None:
    archives = Archives(storage, index, Compression.AUTO)
    blocks = _grown(archives, _model(storage), kind).blocks()
    next(blocks)
    (store / "iris/v1/large").write_bytes(_content(12 * _MIB, "text"))
    with pytest.raises(SourceChangedError):
        for _ in blocks:
            pass
    archives.close()


class TestParts:
    """A stream is cut into parts."""

    @given(
        blocks=st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=30),
        size=st.integers(5, 20),
        data=st.data(),
    )
    def test_parts_are_the_stream(self, blocks: list[tuple[int, bool]], size: int, data: st.DataObject) -> None:
        expected = bytearray()

        def stream() -> Iterable[Block]:
            gap, content = Gap(0), b""
            for length, is_gap in blocks:
                if is_gap or data.draw(st.booleans()):
                    gap.content = content
                made = _DICE.randbytes(min(length, size) if is_gap else length)
                expected.extend(made)
                if is_gap:
                    gap, content = Gap(len(made)), made
                    yield gap
                else:
                    yield memoryview(made)
            gap.content = content

        buffers = PartBuffers(4)
        found: dict[int, bytes] = {}
        waiting = []
        for part in PartCutter(lambda number: buffers.new_part(number, size, ())).cut(stream()):
            waiting.append((part, part.body().content))
            assert not part.gaps
            if len(waiting) > 1:  # one is being sent; two may have a gap, and one is being filled
                _send(found, *waiting.pop(0))
        for sent in waiting:
            _send(found, *sent)
        assert b"".join(found[number] for number in sorted(found)) == bytes(expected)
        assert sorted(found) == [*range(1, len(found) + 1)]
        assert all(len(found[number]) == size for number in range(1, len(found)))


def _send(found: dict[int, bytes], part: Part, content: memoryview) -> None:
    found[part.number] = bytes(content)
    part.free()

"""Compressed archives: independent readers find the original content, any range is a slice, chunks are made as few
times as possible, and output that differs from the measurement is an error."""

import functools
import hashlib
import io
import random
import sys
import threading
import time
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.errors import CancelledError, SourceChangedError
from bentofs.store.formats.pieces import Piece, Views, Zeros, read_bytes
from bentofs.store.formats.write import bzip2, chunk_cache, chunk_maker, deflate, xz_blocks
from bentofs.store.formats.write.chunk_cache import ChunkCache
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Chunks, Codec, Measured, put_in_order
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.registry import FORMATS, TAR_GZ, ZIP, Format
from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.memory_budget import MemoryBudget
from tests.harness import wait_until
from tests.store.content import Memory, whole
from tests.store.formats import golden
from tests.store.formats.compressing import DECOMPRESS, OnTheSpot, fail_on_wrong, unpack_zip
from tests.store.formats.laying_out import in_segments_of
from tests.store.formats.strategies import MTIMES, packed_members, ranges
from tests.store.formats.writers import content_of, write_tar

COMPRESSED = {name: kind for name, kind in FORMATS.items() if kind.compress}
each_format = pytest.mark.parametrize("kind", COMPRESSED.values(), ids=COMPRESSED)


@pytest.fixture(scope="class")
def small_chunks() -> Iterator[None]:
    """Make chunks so small that the drawn members have many, of all kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "CHUNK", 1000)
        patch.setattr(deflate, "_RUN", 700)
        patch.setattr(chunk_maker, "_SMALL", 100)
        for module in (xz_blocks, bzip2):
            codec = module.codec()._replace(chunk=5000)
            patch.setattr(module, "codec", lambda codec=codec: codec)
        yield


def _check(kind: Format, members: list[Member], mtime: int, archive: bytes) -> None:
    if kind is ZIP:
        with_names = [(name, content) for name, content in unpack_zip(archive)]
        assert [content for _, content in with_names] == [content_of(member) for member in members]
    else:
        assert DECOMPRESS[kind.name](archive) == write_tar(members, mtime)


@pytest.mark.usefixtures("small_chunks")
class TestAnyMembers:
    """Any members, in small chunks."""

    @each_format
    @settings(max_examples=60, deadline=None)
    @given(mtime=MTIMES, data=st.data())
    def test_readers_find_what_was_put_in_and_any_range_is_that_slice(
        self, kind: Format, mtime: int, data: st.DataObject
    ) -> None:
        members, packings = data.draw(packed_members())
        efforts = {member.path: data.draw(st.integers(1, 6)) for member in members if member.size >= 400}
        archive = whole(OnTheSpot(efforts).lay_out(kind, members, mtime, packings))
        _check(kind, members, mtime, archive)
        fresh = OnTheSpot(efforts).lay_out(kind, members, mtime, packings)
        assert fresh.length == len(archive)
        for offset, size in data.draw(ranges(len(archive))):
            assert read_bytes(fresh, offset, size) == archive[offset : offset + size]
        with in_segments_of(data.draw(st.integers(1, 4))):
            in_segments = OnTheSpot(efforts).lay_out(kind, members, mtime, packings)
            assert whole(in_segments) == archive
            for offset, size in data.draw(ranges(len(archive))):
                assert read_bytes(in_segments, offset, size) == archive[offset : offset + size]


def _words(size: int, seed: int) -> bytes:
    dice = random.Random(seed)
    words = [dice.randbytes(4).hex().encode() for _ in range(300)]
    return b" ".join(dice.choices(words, k=size // 9 + 1))[:size]


def _real_members() -> tuple[list[Member], list[Packing]]:
    """Chunks of real size: headers, a run, large files that shrink and that do not, more small ones."""
    small = [(f"small/{number:03}", _words(3000, number), Packing.SMALL) for number in range(150)]
    parts = [
        ("model.yaml", b"name: m\n", Packing.SMALL),
        ("large", _words(2_300_000, 1), Packing.LARGE),
        ("mixed", _words(1 << 20, 2) + random.Random(1).randbytes(300_000), Packing.LARGE),
        *small,
        ("weights", random.Random(2).randbytes(700_000), Packing.STORED),
        ("zeros", bytes(2 << 20), Packing.LARGE),
    ]
    members = [Member(path, False, path == "zeros", Memory(content)) for path, content, _ in parts]
    return members, [packing for _, _, packing in parts]


def _compressor() -> OnTheSpot:
    return OnTheSpot({"large": 1, "mixed": 4, "zeros": 6})


@each_format
def test_real_chunk_lengths(kind: Format) -> None:
    members, packings = _real_members()
    archive = whole(_compressor().lay_out(kind, members, 1, packings))
    _check(kind, members, 1, archive)
    assert len(archive) < 3_000_000, "of seven million"
    fresh = _compressor().lay_out(kind, members, 1, packings)
    dice = random.Random(3)
    for _ in range(20):
        offset = dice.randrange(len(archive))
        size = min(dice.randrange(200_000), len(archive) - offset)
        assert read_bytes(fresh, offset, size) == archive[offset : offset + size]


def test_a_zip_says_which_entries_are_deflated() -> None:
    members, packings = _real_members()
    archive = whole(_compressor().lay_out(ZIP, members, 1, packings))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        methods = {info.filename: info.compress_type for info in opened.infolist()}
        assert methods["weights"] == zipfile.ZIP_STORED
        assert methods["large"] == methods["small/007"] == methods["zeros"] == zipfile.ZIP_DEFLATED
        assert methods["model.yaml"] == zipfile.ZIP_STORED, "eight bytes do not become fewer"


@each_format
def test_streaming_compresses_each_chunk_once(kind: Format) -> None:
    compressor = _compressor()
    members, packings = _real_members()
    laid_out = compressor.lay_out(kind, members, 1, packings)
    for member in members:
        if isinstance(member.content, Memory):
            member.content.bytes_read = 0
    for offset in range(0, laid_out.length, 131_072):
        read_bytes(laid_out, offset, min(131_072, laid_out.length - offset))
    read = sum(member.content.bytes_read for member in members if isinstance(member.content, Memory))
    size = sum(member.size for member in members)
    assert size <= read <= size * 1.035, "once, and what stands before each chunk"


@each_format
def test_a_random_read_costs_one_chunk(kind: Format) -> None:
    compressor = _compressor()
    members, packings = _real_members()
    length = compressor.lay_out(kind, members, 1, packings).length
    contents = [member.content for member in members if isinstance(member.content, Memory)]
    for offset in random.Random(1).sample(range(length - 4096), 10):
        compressor.maker = ChunkMaker(fail_on_wrong)
        laid_out = compressor.lay_out(kind, members, 1, packings)
        for content in contents:
            content.bytes_read = 0
        read_bytes(laid_out, offset, 4096)
        assert sum(content.bytes_read for content in contents) <= 2 << 20, "two, where it lies on a border"


# This machine's ISA-L output, by its `codec_name`. Another ISA-L writes other bytes.
_KNOWN = {
    (
        "deflate 7 isal-2.32.1 zlib-1.2.13 1048576 a1fb0aef",
        "tar.gz",
    ): "a590e5080325838c0e24213a4cb4a683abf5c585083171a2bb530536b439171a",
    (
        "deflate 7 isal-2.32.1 zlib-1.2.13 1048576 a1fb0aef",
        "zip",
    ): "91b9dbd513f281b7f76eae05b1f5a352344197e63e0a84f2f02a1817e4b646c0",
}


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
def test_the_same_bytes_every_time(kind: Format) -> None:
    found = set()
    for _ in range(3):
        members = golden.members()
        packings = [Packing.LARGE if member.size >= deflate.SMALL else Packing.SMALL for member in members]
        found.add(hashlib.sha256(whole(OnTheSpot().lay_out(kind, members, golden.MTIME, packings))).hexdigest())
    assert len(found) == 1
    known = _KNOWN.get((deflate.codec_name(), kind.name))
    assert known is None or found == {known}


class _Slow:
    """Slow content; it counts its concurrent readers."""

    def __init__(self, content: bytes, seconds: float) -> None:
        self._content = Memory(content)
        self._seconds = seconds
        self.length = len(content)
        self.reads = self.at_once = self._now = 0
        self._lock = threading.Lock()

    def read_into(self, views: Views, offset: int) -> None:
        with self._lock:
            self._now += 1
            self.reads += 1
            self.at_once = max(self.at_once, self._now)
        time.sleep(self._seconds)
        self._content.read_into(views, offset)
        with self._lock:
            self._now -= 1


_CODEC = Codec("test", 100_000, lambda view, _number, _before: zlib.compress(bytes(view)))


def _chunked(maker: ChunkMaker, content: Piece, contents: bytes, codec: Codec = _CODEC) -> Chunks:
    cuts = range(0, len(contents), codec.chunk)
    sizes = array("I", [len(codec.encode(memoryview(contents[at : at + codec.chunk]), 0, b"")) for at in cuts])
    laid_out = Chunks(maker, codec, content, Measured(("content", codec.name), sizes, "content"))
    put_in_order([laid_out])
    return laid_out


class TestMaking:
    """Chunks are made for many readers."""

    def test_readers_of_one_chunk_share_it(self, maker: ChunkMaker) -> None:
        contents = _words(300_000, 1)
        slow = _Slow(contents, 0.05)
        laid_out = _chunked(maker, slow, contents)
        expected = whole(_chunked(maker, Memory(contents), contents))
        maker.cache.forget(("content", "test"))
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(whole(laid_out))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == [expected] * 8
        assert slow.reads == 3

    def test_the_next_ones_are_made_ahead_of_who_reads_on(self, maker: ChunkMaker) -> None:
        contents = _words(2_000_000, 1)
        slow = _Slow(contents, 0.01)
        laid_out = _chunked(maker, slow, contents)
        read_bytes(laid_out, 0, 10)
        assert slow.at_once == slow.reads == 1, "a look at the beginning is not a reader who comes along"
        whole(laid_out)
        assert slow.at_once > 1
        assert slow.reads == 20

    def test_a_wrong_size_is_an_error_and_told(self) -> None:
        told: list[object] = []
        maker = ChunkMaker(told.append)
        contents = _words(300_000, 1)
        laid_out = _chunked(maker, Memory(contents), contents)
        read_bytes(laid_out, 0, 100)
        laid_out._measured.sizes[1] += 1
        with pytest.raises(SourceChangedError, match="another length than was measured"):
            read_bytes(laid_out, 0, laid_out.length)
        assert told == [("content", "test")]
        maker.close()

    def test_an_error_reaches_all_who_wait_and_is_not_kept(self, maker: ChunkMaker) -> None:
        contents = _words(100_000, 1)
        slow = _Slow(contents, 0.05)
        laid_out = _chunked(maker, slow, contents)
        broken = True

        def read_into(views: Views, offset: int) -> None:
            _Slow.read_into(slow, views, offset)
            if broken:
                raise SourceChangedError("gone")

        slow.read_into = read_into  # type: ignore[method-assign]
        errors: list[BaseException] = []

        def read() -> None:
            try:
                whole(laid_out)
            except SourceChangedError as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(errors) == 4
        broken = False
        assert zlib.decompress(whole(laid_out)) == contents

    def test_stuck_readers_stop_nobody(self, maker: ChunkMaker) -> None:
        """A dead disk may block readers. Readers of other content go on."""
        contents = _words(100_000, 1)
        free = threading.Event()

        class Stuck(Memory):
            def read_into(self, views: Views, offset: int) -> None:
                free.wait(60)
                super().read_into(views, offset)

        stuck = []
        for number in range(4 * chunk_maker.CORES):
            content = Stuck(contents)
            laid_out = _chunked(maker, content, contents, _CODEC._replace(name=f"stuck {number}"))
            stuck.append(threading.Thread(target=whole, args=(laid_out,)))
        try:
            for thread in stuck:
                thread.start()
            started = time.monotonic()
            assert zlib.decompress(whole(_chunked(maker, Memory(contents), contents))) == contents
            assert time.monotonic() - started < 30
        finally:
            free.set()
            for thread in stuck:
                thread.join(30)

    def test_at_the_end_nobody_waits(self) -> None:
        maker = ChunkMaker(lambda name: pytest.fail(f"{name}"))
        contents = _words(300_000, 1)
        laid_out = _chunked(maker, Memory(contents), contents)
        read_bytes(laid_out, 0, 10)
        maker.close()
        with pytest.raises(CancelledError):
            read_bytes(laid_out, laid_out.length - 10, 10)

    def test_memory_is_bounded_and_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunk_cache, "_IDLE_SECONDS", 3.0)  # long enough for a busy machine
        monkeypatch.setattr(chunk_cache, "_RECENT", 1 << 20)
        maker = ChunkMaker(lambda name: pytest.fail(f"{name}"), MemoryBudget(5 << 20))
        codec = Codec("as it is", 100_000, lambda view, _number, _before: bytes(view))
        laid_out = _chunked(maker, Zeros(50_000_000), bytes(50_000_000), codec)
        for number in range(60):
            maker.cache.keep_fresh("batch", ("other", "codec"), number, [bytes(100_000)])
        for offset in range(0, laid_out.length, 1 << 20):
            read_bytes(laid_out, offset, min(1 << 20, laid_out.length - offset))
        cache = maker.cache
        assert 4 << 20 < cache.size <= 5 << 20
        kept = [*cache._recent.values(), *(each.made for each in cache._kept.values())]
        assert sum(map(sys.getsizeof, kept)) < cache.size, "all that they take is counted"
        assert (("other", "codec"), 0) in cache, "the first of a batch stay"
        wait_until(lambda: not cache.size and not maker._buffers, 30, "all memory is given back")
        maker.close()

    @pytest.mark.parametrize(("fits", "again"), [(100, 0), (60, 55)], ids=["fits", "does not fit"])
    def test_chunks_that_fit_are_made_once_for_one_reader_after_another(
        self, monkeypatch: pytest.MonkeyPatch, fits: int, again: int
    ) -> None:
        monkeypatch.setattr(chunk_cache, "_RECENT", 10 * 100_600)
        made: list[int] = []

        def encode(view: memoryview, number: int, _before: bytes) -> bytes:
            made.append(number)
            return bytes(view)

        maker = ChunkMaker(lambda name: pytest.fail(f"{name}"), MemoryBudget(fits * 100_600))
        laid_out = _chunked(maker, Zeros(10_000_000), bytes(10_000_000), Codec("as it is", 100_000, encode))
        made.clear()
        for _ in range(3):
            whole(laid_out)
        assert 100 <= len(made) <= 100 + 2 * again, "the recent ones come and go"
        assert all(number >= 100 - again for number in made[100:]), "the first stay"
        maker.close()

    def test_chunks_of_archives_that_are_read_once_go_when_they_were_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chunk_cache, "_READ_ONCE", 10 * 100_600)
        maker = ChunkMaker(lambda name: pytest.fail(f"{name}"), MemoryBudget(50 * 100_600, reads_once=True))
        codec = Codec("as it is", 100_000, lambda view, _number, _before: bytes(view))
        laid_out = _chunked(maker, Zeros(10_000_000), bytes(10_000_000), codec)
        maker.cache.keep_fresh("batch", ("content", codec.name), 0, [bytes(100_000)] * 50)
        assert maker.cache.size == 50 * 100_600
        assert read_bytes(laid_out, 0, 4_000_000) == bytes(4_000_000)
        assert maker.cache.size == 20 * 100_600
        assert whole(laid_out) == bytes(10_000_000)
        assert maker.cache.size == 10 * 100_600
        maker.close()

    def test_a_chunk_that_is_measured_and_read_while_it_is_made_ahead_is_counted_once(self) -> None:
        is_waiting, goes_on = threading.Event(), threading.Event()
        size = 100_000

        def encode(view: memoryview, number: int, _before: bytes) -> bytes:
            if threading.current_thread().name.startswith("chunks") and number == 2:
                is_waiting.set()
                assert goes_on.wait(30)
            return bytes(view)

        maker = ChunkMaker(lambda name: pytest.fail(f"{name}"), MemoryBudget(reads_once=True))
        codec = Codec("as it is", size, encode)
        laid_out = _chunked(maker, Zeros(3 * size), bytes(3 * size), codec)
        read_bytes(laid_out, 0, 2 * size)  # so the third one is made ahead
        assert is_waiting.wait(30)
        maker.cache.keep_fresh("batch", ("content", codec.name), 2, [bytes(size)])  # by another archive's measuring
        assert read_bytes(laid_out, 2 * size, size) == bytes(size)
        before = maker.cache.size
        goes_on.set()
        wait_until(lambda: not maker._making, 30, "it is made")
        assert maker.cache.size == before
        maker.close()

    def test_what_is_kept_for_readers_who_may_come_takes_no_room_from_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chunk_cache, "_LEAST", 7000)
        monkeypatch.setattr(chunk_cache, "_PERHAPS", 7000)
        monkeypatch.setattr(chunk_cache, "_MOST", 0)
        cache = ChunkCache(lambda: None, MemoryBudget())  # for ten chunks
        names = {who: (who, "codec") for who in ("spare", "earlier", "wanted")}
        for number in range(5):
            cache.keep_fresh("a batch", names["earlier"], number, [bytes(100)])
        for number in range(10):
            cache.keep_fresh(None, names["spare"], number, [bytes(100)])
        assert [number for number in range(10) if (names["spare"], number) in cache] == [*range(5)], "what there is"
        assert all((names["earlier"], number) in cache for number in range(5))
        for number in range(12):
            cache.keep_fresh("another", names["wanted"], number, [bytes(100)])
            if number < 5:
                assert all((names["earlier"], number) in cache for number in range(5)), "the spare ones give way first"
        assert [number for number in range(12) if (names["wanted"], number) in cache] == [*range(10)]
        assert cache.size == 7000

    def test_it_gives_way_to_other_caches_and_to_decoders(self) -> None:
        budget = MemoryBudget(20 << 20)
        cache = ChunkCache(lambda: None, budget)
        other: BudgetedCache[int, bytes] = BudgetedCache(budget, 10 << 20)
        for number in range(40):
            cache.keep_fresh("a batch", ("wanted", "codec"), number, [bytes(1 << 20)])
        assert 18 << 20 < cache.size <= 20 << 20
        other.put(1, b"", 8 << 20)
        assert 11 << 20 < cache.size <= 12 << 20
        budget.reserve(20 << 20)
        assert cache.size <= 2 << 20, "so much it needs for those who read"
        assert (("wanted", "codec"), 0) in cache, "the first of a batch stay"
        assert other.get(1) is None

    @pytest.fixture
    def maker(self) -> Iterator[ChunkMaker]:
        maker = ChunkMaker(lambda name: pytest.fail(f"{name} came out otherwise"))
        yield maker
        maker.close()


@pytest.mark.parametrize("effort", range(1, deflate.MOST_EFFORT + 1))
def test_a_chunk_may_refer_to_what_stands_before_it_and_only_to_that(effort: int) -> None:
    content = _words(3 * deflate.CHUNK + 1000, 4)
    piece = Memory(content)
    maker = OnTheSpot().maker
    codec = deflate.chunk_codec(effort)
    cuts = range(0, len(content), deflate.CHUNK)
    made = [
        maker.encode(codec, piece, at, min(at + deflate.CHUNK, len(content)), number) for number, at in enumerate(cuts)
    ]
    assert zlib.decompress(b"".join(made) + deflate.END, -15) == content
    decoder = zlib.decompressobj(-15, zdict=content[deflate.CHUNK - 32768 : deflate.CHUNK])
    assert decoder.decompress(made[1]) == content[deflate.CHUNK : 2 * deflate.CHUNK]
    alone = [deflate.compress_chunk(memoryview(content)[at:][: deflate.CHUNK], 0, b"", effort) for at in cuts]
    assert sum(map(len, made)) < sum(map(len, alone))
    maker.close()


class TestJudging:
    """The decision to compress, and the effort."""

    @pytest.mark.parametrize(
        ("content", "worth_it"),
        [
            (random.Random(1).randbytes(500_000), False),
            (_words(500_000, 1), True),
            (bytes(500_000), True),
            (b"\x00\x01\x02\x03" + bytes(range(256)) * 1950, True),
            (random.Random(1).randbytes(100_000) + _words(400_000, 1), True),
            (_words(100_000, 1) + random.Random(1).randbytes(400_000), False),
        ],
        ids=["noise", "words", "zeros", "a ramp", "mostly words", "mostly noise"],
    )
    def test_worth_it(self, content: bytes, worth_it: bool) -> None:
        verdict = deflate.judge(functools.partial(read_bytes, Memory(content)), len(content))
        assert verdict == deflate.judge(functools.partial(read_bytes, Memory(content)), len(content))
        assert verdict.worth_it is worth_it
        assert 1 <= verdict.effort <= deflate.MOST_EFFORT

    @pytest.mark.parametrize(("content", "share"), [(random.Random(1).randbytes, 0.5), (bytes, 1.0)])
    def test_half_of_the_sample_shows_what_is_hopeless(self, content: Callable[[int], bytes], share: float) -> None:
        file = Memory(content(1_000_000))
        deflate.judge(functools.partial(read_bytes, file), file.length)
        assert file.bytes_read == share * sum(size for _, size in deflate.sample_ranges(file.length))

    @given(length=st.integers(deflate.SMALL, 1 << 40))
    def test_samples_lie_in_the_file(self, length: int) -> None:
        parts = deflate.sample_ranges(length)
        assert parts[0][0] == 0
        assert parts[-1][0] + parts[-1][1] == length
        assert all(0 <= offset <= offset + size <= length for offset, size in parts)
        assert sum(size for _, size in parts) <= max(length // 16, 1 << 18)

    def test_effort_lies_between_two_levels(self) -> None:
        content = memoryview(_words(1 << 20, 5))

        def length(effort: int) -> int:
            return sum(len(deflate.compress_chunk(content, number, b"", effort)) for number in range(8))

        level2, level3 = length(2), length(6)
        assert [length(effort) - level2 for effort in (3, 4, 5)] == [
            (level3 - level2) * share // 4 for share in (1, 2, 3)
        ]

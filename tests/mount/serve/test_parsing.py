"""`bentofs serve`: targets, ranges and headers that are drawn, not thought of."""

import os

from hypothesis import example, given
from hypothesis import strategies as st

from bentofs.mount.serve.answers import reason_phrase, status_of
from bentofs.mount.serve.dav.locks import parse_if
from bentofs.mount.serve.media import disposition
from bentofs.mount.serve.ranges import Validators, precondition_status, wanted_spans
from bentofs.mount.serve.targets import BadTargetError, href, parse_target
from bentofs.store import errors

VALIDATORS = Validators('"tag"', 1_767_323_045_678_901_000)
names = st.lists(
    st.binary(min_size=1, max_size=20)
    .filter(lambda name: not {0, 13, 47} & set(name) and name not in (b".", b".."))
    .map(os.fsdecode),
    max_size=5,
)
headers = st.text(st.characters(max_codepoint=0x250), max_size=60)


@given(names, st.booleans())
@example([], True)
def test_each_path_has_a_url(path: list[str], is_folder: bool) -> None:
    url = href(path, is_folder=is_folder)
    assert url.isascii()
    target = parse_target(url)
    assert list(target.names) == path
    assert target.is_folder == (is_folder or not path)
    assert parse_target(f"http://host:8080{url}?a=/../b").names == target.names


@given(st.text(st.characters(max_codepoint=0x250), max_size=60))
@example("/%2e%2e/%2f")
@example("//")
@example("/a%00b")
def test_no_target_leads_up(raw: str) -> None:
    try:
        target = parse_target(raw)
    except BadTargetError:
        return
    for name in target.names:
        assert name not in ("", ".", "..")
        assert not {"/", "\0", "\r"} & set(name)


ranges = st.lists(
    st.tuples(st.integers(0, 40).map(str) | st.just(""), st.integers(0, 40).map(str) | st.just("")), max_size=6
).map(lambda parts: "bytes=" + ",".join(f"{first}-{last}" for first, last in parts))


@given(ranges | headers, st.integers(0, 30))
@example("bytes=0-0,-1", 1)
@example("bytes=-0", 0)
def test_ranges_lie_in_the_file_and_come_once(header: str, size: int) -> None:
    spans = wanted_spans({"Range": header}, VALIDATORS, size)
    seen: set[int] = set()
    for span in spans or ():
        positions = range(span.start, span.start + span.length)
        assert len(positions) > 0
        assert positions[-1] < size
        assert not seen & set(positions)
        seen |= set(positions)


@given(headers, headers, headers)
def test_no_header_is_too_odd(one: str, two: str, three: str) -> None:
    conditions = {"If-Match": one, "If-None-Match": two, "If-Range": three, "If-Modified-Since": one}
    conditions |= {"If-Unmodified-Since": two, "Range": "bytes=0-1"}
    for is_read in (True, False):
        assert precondition_status(conditions, VALIDATORS, is_read=is_read) in (None, 304, 412)
    assert wanted_spans(conditions, VALIDATORS, 10) is None or three.strip() == '"tag"'
    try:
        parse_if(one)
    except ValueError:
        pass


def test_every_error_has_a_status() -> None:
    """500 and above are for faults of this machine, or of a server behind it."""
    blamed: dict[type[errors.StoreError], int] = {
        errors.AlteredModelError: 500,
        errors.NoHomeError: 500,
        errors.StagingError: 500,
        errors.StoreUnwritableError: 500,
        errors.StoreUnreadableError: 500,
        errors.StoreDeniedError: 500,
        errors.SourceChangedError: 503,
        errors.ConditionFailedError: 503,
        errors.NoSpaceError: 507,
    }
    told = {
        kind: status_of(kind("why"))
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.StoreError) and kind is not errors.StoreError
    }
    blamed |= {kind: 502 for kind in told if issubclass(kind, errors.RemoteError) and told[kind] != 404}
    assert {kind: status for kind, status in told.items() if status >= 500} == blamed
    assert {told[errors.OtherContentError], told[errors.InUseError], told[errors.CancelledError]} == {409}
    assert (told[errors.TooBigError], told[errors.NotAnArchiveError], told[errors.NotAModelError]) == (413, 415, 422)
    assert (told[errors.DamagedArchiveError], told[errors.UnsafeMemberError]) == (422, 422)
    assert (told[errors.NotFoundError], told[errors.RemoteNotFoundError]) == (404, 404)


@given(st.text(max_size=300))
def test_a_sentence_is_one_line_of_ascii(sentence: str) -> None:
    for shown in (reason_phrase(sentence), disposition("attachment", sentence.replace("\0", ""))):
        assert shown.isascii()
        assert shown.isprintable()
    assert len(reason_phrase(sentence)) <= 200

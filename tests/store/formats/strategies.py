"""Strategies for hypothesis: names in any script, members, ranges."""

from hypothesis import strategies as st

from bentofs.store.formats.write.members import Member, Packing
from tests.store.content import Memory

_AWKWARD = [
    "with space",
    "'single' \"double\" `back`",
    "new\nline",
    "tab\tand\rreturn",
    "back\\slash",
    "-rf",
    "*?[x]",
    "%s %n $HOME ;&|",
    "\x1b[31mred",
    "модель",
    "模型",
    "モデル",
    "نموذج",
    "e\u0301 is not \u00e9",
    "🧠",
    "ends with dot.",
    " ",
    "...",
    "c:like a drive",
    "Z:",
    "é:",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "ü" * 51,
    "n" * 255,
]
_characters = st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0")
_texts = st.text(_characters, min_size=1, max_size=30)
# Bytes that are not UTF-8, decoded by os.fsdecode; long enough for `writers.write_zip`.
_undecodable = st.binary(min_size=1, max_size=20).map(
    lambda raw: (b"undecodable bytes: \xff\xfe" + raw.replace(b"/", b"_").replace(b"\0", b"_")).decode(
        "utf-8", "surrogateescape"
    )
)
_names = st.one_of(st.sampled_from(_AWKWARD), _texts, _undecodable).filter(lambda name: name not in (".", ".."))

MTIMES = st.one_of(
    st.just(0),
    st.integers(0, 2**31 - 1),
    # the first and last times of the DOS fields, of the UT field, of ustar's octal digits
    st.sampled_from([315532799, 315532800, 2**31 - 1, 2**31, 4354819198, 4354819199, 4354819200, 8**11 - 1, 8**11]),
)

_SIZES = [0, 1, 511, 512, 513, 10_239, 10_240, 10_241, 65_530, 65_531, 65_532, 65_533, 65_534, 65_536, 140_000]
contents = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda size, byte: bytes([byte]) * size, st.sampled_from(_SIZES), st.integers(0, 255)),
)


@st.composite
def member_lists(draw: st.DrawFn, max_size: int = 8) -> list[Member]:
    """Draw members in archive order: `model.yaml` first, directories before their content."""
    members = {"model.yaml": draw(contents)}
    folders: set[str] = set()
    for _ in range(draw(st.integers(0, max_size))):
        *above, name = draw(st.lists(_names, min_size=1, max_size=4))
        path = ""
        for part in above:
            path = f"{path}{part}"
            if path in members:
                break
            folders.add(path)
            path += "/"
        else:
            path += name
            if draw(st.booleans()) and path not in folders:
                members[path] = draw(contents)
            elif path not in members:
                folders.add(path)
    found = [_member(path, False, content, draw(st.booleans())) for path, content in members.items()]
    found += [_member(path, True, b"", True) for path in folders]
    return sorted(
        found, key=lambda member: (member.path != "model.yaml", member.path.encode("utf-8", "surrogateescape"))
    )


def _member(path: str, is_folder: bool, content: bytes, executable: bool) -> Member:
    return Member(path, is_folder, executable, Memory(content) if content else None)


@st.composite
def ranges(draw: st.DrawFn, length: int, count: int = 6) -> list[tuple[int, int]]:
    """Draw (offset, size) of reads within a piece, its ends among them."""
    found = [(0, min(512, length)), (max(0, length - 1024), min(1024, length))]
    for _ in range(count):
        offset = draw(st.integers(0, length))
        found.append((offset, draw(st.integers(0, length - offset))))
    return found


@st.composite
def packed_members(draw: st.DrawFn) -> tuple[list[Member], list[Packing]]:
    """Draw members, and packings of all kinds, where files from 400 bytes on are large."""
    members = draw(member_lists())
    shrunk = [Packing.SMALL if member.size < 400 else Packing.LARGE for member in members]
    tiny = {Packing.SMALL: [Packing.TINY]}
    return members, [draw(st.sampled_from([Packing.STORED, packing, *tiny.get(packing, [])])) for packing in shrunk]

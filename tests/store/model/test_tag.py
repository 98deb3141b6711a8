"""Tags, by BentoML's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.errors import BadTagError
from bentofs.store.model.tag import MAX_LENGTH, Tag, is_tag_part

_alphanumeric = st.sampled_from("abcxyz0189")


@st.composite
def _parts(draw: st.DrawFn) -> str:
    first = draw(_alphanumeric)
    middle = draw(st.text(st.sampled_from("abcxyz0189-_."), max_size=MAX_LENGTH - 2))
    return first + (middle + draw(_alphanumeric) if draw(st.booleans()) else "")


@given(_parts(), _parts())
def test_a_legal_tag_comes_back_as_written(name: str, version: str) -> None:
    tag = Tag.parse(f"{name}:{version}")
    assert (tag, str(tag), tag.path) == ((name, version), f"{name}:{version}", f"{name}/{version}")
    assert tag.stem == f"{name}-{version}"


@given(st.text(max_size=70))
def test_whatever_is_parsed_is_a_name_and_a_version(text: str) -> None:
    try:
        tag = Tag.parse(text)
    except BadTagError:
        return
    assert str(tag) == text
    assert is_tag_part(tag.name)
    assert is_tag_part(tag.version)
    assert not set("/\0\n") & set(text)


@pytest.mark.parametrize("part", ["a", "0", "m.tar.gz", "v1.zip", "latest", "a-b", "a--b", "a..b", "a_b", "x" * 63])
def test_legal(part: str) -> None:
    assert is_tag_part(part)


@pytest.mark.parametrize(
    "part",
    [
        "",
        ".",
        "..",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "a_",
        "A",
        "ä",
        "a b",
        "a/b",
        "a:b",
        "a\n",
        "a\0",
        "x" * 64,
        "\u0661",
    ],
)
def test_illegal(part: str) -> None:
    assert not is_tag_part(part)
    for text in (f"{part}:v1", f"iris:{part}"):
        with pytest.raises(BadTagError):
            Tag.parse(text)


@pytest.mark.parametrize("text", ["", "iris", ":", "a:b:c", "iris:", ":v1"])
def test_not_a_tag(text: str) -> None:
    with pytest.raises(BadTagError, match=r"tag|version"):
        Tag.parse(text)


def test_a_stem_alone_is_ambiguous_but_no_path_is() -> None:
    one, other = Tag.parse("a-b:c"), Tag.parse("a:b-c")
    assert one.stem == other.stem
    assert one.path != other.path

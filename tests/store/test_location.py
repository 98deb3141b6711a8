"""The meaning of BentoML's arguments. No secret is ever shown."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.clients.error_classes import reason_of
from bentofs.store.errors import BadLocationError
from bentofs.store.location import Location
from bentofs.store.util.urls import without_secrets


def test_a_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.parse("a/m.tar").path == f"{tmp_path}/a/m.tar"
    assert Location.parse("./").path == f"{tmp_path}/"
    assert Location.parse("a", subpath="m.zip").path == f"{tmp_path}/a/m.zip"
    assert Location.parse("a", subpath="m.zip", protocol="osfs").path == f"{tmp_path}/a/m.zip"
    assert Location.parse("file:///x/y.tar").path == "/x/y.tar"
    assert Location.parse("/").path == "/"


@pytest.mark.parametrize("path", ["nope://a/b", "a::b://c"])
def test_an_unknown_protocol_is_refused_with_those_that_are_known(path: str) -> None:
    with pytest.raises(BadLocationError, match=r"not a known protocol.* file, .*ftp, .*s3, ") as raised:
        Location.parse(path)
    assert isinstance(raised.value, ValueError)  # the error that BentoML raises
    with pytest.raises(BadLocationError, match="not a known protocol"):
        Location.parse("x", protocol="nope")


@pytest.mark.parametrize(
    "part", [{"protocol": "s3"}, {"user": "u"}, {"passwd": "p"}, {"params": {"a": "b"}}, {"subpath": "x"}]
)
def test_a_url_and_its_parts_are_not_mixed(part: dict[str, object]) -> None:
    with pytest.raises(BadLocationError, match=r"s3://b/k is a URL"):
        Location.parse("s3://me:secret@b/k", **part)  # type: ignore[arg-type]


def test_parts_and_url_mean_the_same() -> None:
    url = Location.parse("s3://AK:se%2Fcr%40et@bucket/some/key.zip?region=eu-1")
    parts = {"user": "AK", "passwd": "se/cr@et", "params": {"region": "eu-1"}, "protocol": "s3"}
    assert url == Location.parse("bucket/some/key.zip", **parts)  # type: ignore[arg-type]
    assert url == Location.parse("bucket", subpath="some/key.zip", **parts)  # type: ignore[arg-type]
    assert url.url == "s3://bucket/some/key.zip"


def test_what_is_no_part_of_a_host_stays_in_the_path() -> None:
    assert Location.parse("s3://bucket/a#b%20c.tar").path == "a#b%20c.tar"
    assert Location.parse("http://host/m.tar?signature=abc").path == "m.tar?signature=abc"


@pytest.mark.parametrize("url", ["s3:///key", "ftp://", "file://other/path", "s3://[bad/k"])
def test_nonsense_is_refused(url: str) -> None:
    with pytest.raises(BadLocationError):
        Location.parse(url)


@pytest.mark.parametrize("path", ["a", "/x"])
def test_a_path_of_this_machine_takes_no_credentials(path: str) -> None:
    with pytest.raises(BadLocationError, match="takes no user"):
        Location.parse(path, passwd="p")


@pytest.mark.parametrize("name", ["v1.tar", "v1 tar", "a\nb"])
@pytest.mark.parametrize("folder", ["", "x", "x/", "x/y//"])
def test_names_below(folder: str, name: str) -> None:
    location = Location.parse("bucket", protocol="s3", subpath=folder).below(name)
    assert location.path == os.path.join(folder.rstrip("/"), name)
    assert "\n" not in location.shown


_SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=12)


@given(password=_SECRETS, value=_SECRETS, user=_SECRETS)
def test_secrets_are_shown_nowhere(password: str, value: str, user: str) -> None:
    for protocol in ("s3", "ftp", "http"):
        netloc = f"{quote(user, '')}:{quote(password, '')}@host"
        url = f"{protocol}://{netloc}/path/m.tar?token={quote(value, '')}"
        location = Location.parse(url)
        assert (location.user, location.password) == (user, password)
        shown = location.url + location.shown + repr(location).replace(location.path, "") + without_secrets(url)
        for secret in (password, value, quote(password, ""), quote(value, "")):
            assert secret not in shown
        assert password in location.secrets


@pytest.mark.parametrize("password", ["p#secret", "p/secret", "p?secret", "a@p#secret", "12#secret"])
def test_a_password_that_nobody_quoted_is_not_shown(password: str) -> None:
    url = f"ftp://me:{password}@host/m.tar"
    assert "secret" not in without_secrets(url)
    with pytest.raises(BadLocationError) as raised:
        Location.parse(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("password", ["secret\uff1a\uff1f", "a[secret]b", "[secret"])
def test_a_password_that_makes_no_url_is_not_shown(password: str) -> None:
    with pytest.raises(BadLocationError) as raised:
        Location.parse(f"ftp://me:{password}@host/m.tar")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("char", ["\t", "\r", "\n"])
def test_no_character_of_a_path_is_left_out(char: str) -> None:
    with pytest.raises(BadLocationError, match="not a URL"):
        Location.parse(f"s3://bucket/a{char}b.tar")
    assert Location.parse(f"bucket/a{char}b.tar", protocol="s3").path == f"a{char}b.tar"


@pytest.mark.parametrize(
    ("path", "parts"),
    [("s3://bucket/\udcf6", {}), ("s3://\udcf6/a", {}), ("host", {"protocol": "ftp", "subpath": "\udcf6"})],
)
def test_names_on_servers_are_text(path: str, parts: dict[str, str]) -> None:
    with pytest.raises(BadLocationError, match="is not UTF-8"):
        Location.parse(path, **parts)  # type: ignore[arg-type]
    assert Location.parse("\udcf6").path.endswith("/\udcf6")


def test_short_texts_are_struck_out_where_they_stand_alone() -> None:
    """Otherwise a parameter of one digit would remove all ports and addresses from a sentence."""
    error = ValueError("port 1 of 127.0.0.1 refuses a:1@b, not abcdefg")
    assert reason_of(error, ["1", "bcde"]) == "port *** of 127.0.0.*** refuses a:***@b, not a***fg"


def test_credentials_of_the_environment_are_secrets_of_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret\r")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert Location.parse("s3://bucket/k").secrets == ["secret", "token"]
    assert Location.parse("ftp://host/k").secrets == []

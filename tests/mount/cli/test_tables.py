"""Columns: the output of `bentofs list`."""

from bentofs.mount.cli.tables import in_columns


def test_each_is_as_wide_as_its_widest_text() -> None:
    rows = [("Tag", "Size", "Module"), ("a:b", "10", ""), ("模型:v1", "5", "x"), ("c", "1000000", "y z")]
    assert list(in_columns(rows, right={1})) == [
        "Tag         Size  Module",
        "a:b           10",
        "模型:v1        5  x",
        "c        1000000  y z",
    ]


def test_none() -> None:
    assert list(in_columns([])) == []

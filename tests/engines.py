"""The engines with which tests mount.

Nearly all tests mount with the default engine. `BENTOFS_ENGINE=libfuse2 scripts/test` runs them with the other one. In
every run, the tests of what an engine may do differently use both.
"""

from typing import TypeVar

import pytest

Case = TypeVar("Case")

DEFAULT: tuple[str, ...] = ()  # the engine that $BENTOFS_ENGINE names, else the default one
LIBFUSE2 = ("--engine", "libfuse2")
BOTH = [pytest.param(DEFAULT, id="default"), pytest.param(LIBFUSE2, id="libfuse2")]

both_engines = pytest.mark.parametrize("engine", BOTH)


def cases_by_engine(
    name: str, cases: "list[Case] | tuple[Case, ...]", with_libfuse2: "list[Case]"
) -> pytest.MarkDecorator:
    """Return a mark that runs all cases with the default engine, and some with libfuse 2 as well."""
    return pytest.mark.parametrize(
        (name, "engine"),
        [
            *[pytest.param(case, DEFAULT, id=str(case)) for case in cases],
            *[pytest.param(case, LIBFUSE2, id=f"{case}-libfuse2") for case in with_libfuse2],
        ],
    )

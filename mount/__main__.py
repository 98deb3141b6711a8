"""The entry point, `bentofs` or `python -m mount`."""

from __future__ import annotations

from typing import NoReturn

from mount.arguments import true_arguments
from mount.descriptors import fill_closed


def main() -> NoReturn:
    """Run the command line."""
    fill_closed()
    arguments = true_arguments()  # before all that takes long to load: until then, everybody may read them
    from mount.cli import run

    run(arguments)


if __name__ == "__main__":
    main()

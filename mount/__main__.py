"""The entry point, `bentofs` or `python -m bentofs.mount`."""

from __future__ import annotations

import sys
from typing import NoReturn

from bentofs.mount.daemon.argv_secrets import true_arguments


def main() -> NoReturn:
    """Run the command line."""
    arguments = true_arguments()  # before all other imports: until then, all users may read them
    from bentofs.mount.daemon.stdio import fill_closed, write_in_terminals_charset

    fill_closed()
    write_in_terminals_charset()
    try:
        from bentofs.mount.cli.main import run
    except KeyboardInterrupt:  # loading takes half a second; a user may have noticed a typing error
        sys.stderr.write("bentofs: interrupted\n")
        sys.exit(130)
    run(arguments)


if __name__ == "__main__":
    main()

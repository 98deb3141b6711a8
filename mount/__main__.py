"""`python -m mount`: the command line."""

from mount.cli import main

main()

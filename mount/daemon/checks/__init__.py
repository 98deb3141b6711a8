"""Checks of all that a mount needs, each with its outcome and an advice."""

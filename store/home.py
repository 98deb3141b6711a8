"""Where BentoML keeps its models."""

from __future__ import annotations

import os


def default_store() -> str:
    """$BENTOML_HOME/models, else ~/bentoml/models."""
    home = os.environ.get("BENTOML_HOME") or os.path.join(os.path.expanduser("~"), "bentoml")
    return os.path.join(home, "models")

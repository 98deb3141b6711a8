"""The defaults of a store in a bucket. They stand alone, so that a local store need not load `remote.py` for them."""

DEFAULT_TTL = 10.0  # seconds
DEFAULT_CACHE_SIZE = 32 << 20  # bytes
DEFAULT_PATIENCE = 30.0  # seconds

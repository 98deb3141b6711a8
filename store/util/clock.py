"""The unit of times: nanoseconds since 1970, as in `os.stat_result`."""

SECOND_NS = 1_000_000_000

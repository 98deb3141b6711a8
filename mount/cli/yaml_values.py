"""Turn the values of a YAML document into values of JSON."""

from __future__ import annotations

import base64
import datetime
import math


def as_json_values(value: object) -> object:
    """Return a value with JSON's types only.

    Keys become texts, times ISO texts, sets lists, and bytes base64. Numbers that JSON lacks (infinity, NaN, thousands
    of digits) become texts.

    Raises:
        RecursionError: the value is nested too deep.
    """
    if isinstance(value, dict):
        return {_text(key): as_json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [as_json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value.bit_length() < _PRINTABLE_BITS else hex(value)
    if value is None or isinstance(value, (str, float, bool)):
        return value
    return _text(value)


_PRINTABLE_BITS = 14_000  # Python refuses to print more than 4,300 digits


def _text(value: object) -> str:
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int) and value.bit_length() >= _PRINTABLE_BITS:
        return hex(value)
    return str(value)

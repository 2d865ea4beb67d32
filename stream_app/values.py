"""The plain values of a JSON or Avro record to numbers: by position or by feature name, null where one is missing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.errors import DecodeError, LimitError, ShapeError
from stream_app.headers import parse_time, seconds_of

DATA, TIMESTAMP, STREAM = "data", "timestamp", "stream"

_NUMBERS = frozenset({int, float})
_NUMBERS_AND_NULL = _NUMBERS | {type(None)}
_DEEPEST = 3  # lists in lists: height, width, channels
_LONGEST_TIME = 64
_MOST_NAMED = 8  # names in an error: it becomes a header of the dead letter
_LONGEST_NAME = 40


class Numbers(NamedTuple):
    """An array, and how many of its values are null: NaN in the array, which is then of float64."""

    array: NDArray[Any]
    nulls: int


def fields_of(value: Any, bare: bool) -> dict[str, Any]:
    """The fields `data` and, where there are any, `timestamp` and `stream`.

    `bare`: the value may also be the data themselves: a list, or an object whose other fields are features; one of
    them may be called `data`, as long as it isn't a list or an object. Raises DecodeError for anything else.
    """
    if isinstance(value, dict) and DATA in value and (isinstance(value[DATA], list | dict) or not bare):
        return value
    if bare and isinstance(value, dict):
        beside = {name: value[name] for name in (TIMESTAMP, STREAM) if name in value}
        return {DATA: {name: each for name, each in value.items() if name not in beside}, **beside}
    if bare and isinstance(value, list):
        return {DATA: value}
    raise DecodeError('value: without a "data" field; expected {"data": [[…]]}')


def time_of(value: Any) -> float:
    """Seconds since the Unix epoch of a field `timestamp`. Raises DecodeError or LimitError."""
    if isinstance(value, datetime):
        return seconds_of(value)
    if not isinstance(value, str) or not value:
        raise DecodeError(
            f"{TIMESTAMP}: expected RFC 3339 text, in Avro also a long of logical type timestamp-millis; "
            f"got {_shown(value)}"
        )
    return parse_time(TIMESTAMP, text_of(value, TIMESTAMP, _LONGEST_TIME))


def text_of(value: Any, field: str, limit: int) -> str:
    """A text of at most `limit` bytes. Raises DecodeError or LimitError."""
    if not isinstance(value, str) or not value:
        raise DecodeError(f"{field}: expected text, got {_shown(value)}")
    if len(value.encode()) > limit:
        raise LimitError(f"{field}: {len(value.encode())} bytes are more than {limit}")
    return value


def in_order(data: Any, features: tuple[str, ...] | None) -> Any:
    """Data of a sequence with each object by feature name as a list in the order of `features`.

    Data of lists come back as they are. Raises ShapeError for names that are unknown or missing, all of them in one
    error, and where the detector has no names.
    """
    if isinstance(data, dict):
        return _row(data, features, DATA)
    if isinstance(data, list) and any(isinstance(row, dict) for row in data):
        return [_row(row, features, f"{DATA}[{step}]") for step, row in enumerate(data)]
    return data


def read_numbers(data: Any, nulls: bool) -> Numbers:
    """Nested lists of numbers, with null for a missing one where `nulls` allows it, as an array.

    Raises ShapeError for rows of unequal length, DecodeError for what isn't a number.
    """
    values, shape = _flat(data)
    types = set(map(type, values))
    if not types <= (_NUMBERS_AND_NULL if nulls else _NUMBERS):
        numbers, others = ("numbers and null", "text") if nulls else ("numbers", "null, text")
        raise DecodeError(f"data: expected nested lists of {numbers}; {others} and booleans aren't numbers")
    array = np.array(values) if types == {int} else np.array(values, np.float64)
    return Numbers(array.reshape(shape), values.count(None) if not types <= _NUMBERS else 0)


def listed(names: Collection[str]) -> str:
    """Names for an error, the first few of many."""
    shown = ", ".join(name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…" for name in names)
    if len(names) > _MOST_NAMED:
        first = list(names)[:_MOST_NAMED]
        return f"{listed(first)} and {len(names) - _MOST_NAMED} more"
    return shown


def _shown(value: Any) -> str:
    """For an error: the value if it is a plain one, else its type."""
    return repr(value) if isinstance(value, str | int | float) else type(value).__name__


def _flat(data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """What nested lists hold, in order, and their shape. Raises ShapeError where they have none."""
    level: list[Any] = [data]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        lengths = {len(row) if isinstance(row, list) else -1 for row in level}
        if len(lengths) > 1:
            raise ShapeError("data: rows of unequal length")
        if len(shape) == _DEEPEST:
            raise ShapeError(f"data: lists are nested more than {_DEEPEST} deep")
        level = list(chain.from_iterable(level))
        shape += lengths
    if list in map(type, level):
        raise ShapeError("data: rows of unequal length")
    return level, tuple(shape)


def _row(row: Any, features: tuple[str, ...] | None, where: str) -> list[Any]:
    if not isinstance(row, dict):
        raise ShapeError(f"{where}: {type(row).__name__} among objects by feature name")
    if features is None:
        raise ShapeError(
            f"{where}: an object by feature name, but the detector doesn't know its features' names; "
            "publish lists in the order of its columns, or train it from a .csv file with a header"
        )
    unknown = [str(name) for name in row if name not in features]
    missing = [name for name in features if name not in row]
    if unknown or missing:
        wrong = [f"unknown {listed(unknown)}"] if unknown else []
        wrong += [f"missing {listed(missing)}"] if missing else []
        raise ShapeError(f"{where}: {'; '.join(wrong)}; the detector's features are {listed(features)}")
    return [row[name] for name in features]

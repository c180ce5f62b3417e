"""Reads what encode.dumps has written, or what a hostile program sends in its place, in time linear in its length."""

import json
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rlvr_limit.grading.sandbox.encode import MAX_CLASHES, MalformedValue, OpaqueObject


def loads(text: str | bytes) -> Any:
    """The value of a line of JSON made by encode.dumps; raises MalformedValue for any other text."""
    try:
        return _decode(json.loads(text))
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise MalformedValue(f"{type(error).__name__}: {error}"[:200]) from error


def as_set(items: Iterable[Any]) -> set[Any]:
    """set(items); raises MalformedValue where so many differ but hash alike that a set would take quadratic time."""
    kept = list(items)
    first: dict[int, Any] = {}
    clashes = 0
    for item in kept if len(kept) > MAX_CLASHES else ():
        known = first.setdefault(hash(item), item)
        clashes += known is not item and known != item
        if clashes > MAX_CLASHES:
            raise MalformedValue("values made to hash alike")
    return set(kept)


def _decode(data: Any) -> Any:
    if isinstance(data, list):
        return data if {list, dict}.isdisjoint(map(type, data)) else [_decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    ((name, content),) = data.items()
    match name:
        case "int":
            return int(content, 16)
        case "tuple":
            return tuple(_decode(item) for item in content)
        case "dict":
            pairs = [(_decode(key), _decode(value)) for key, value in content]
            as_set(key for key, _ in pairs)
            return dict(pairs)
        case "set":
            return as_set(_decode(item) for item in content)
        case "frozenset":
            return frozenset(as_set(_decode(item) for item in content))
        case "complex":
            real, imaginary = content
            return complex(real, imaginary)
        case "bytes":
            return bytes.fromhex(content)
        case "bytearray":
            return bytearray.fromhex(content)
        case "fraction":
            numerator, denominator = content
            return Fraction(int(numerator, 16), int(denominator, 16))
        case "decimal":
            return Decimal(content)
        case "opaque":
            return OpaqueObject(str(content))
    raise MalformedValue(f"no type {name!r:.40}")

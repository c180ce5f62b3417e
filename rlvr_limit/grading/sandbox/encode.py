"""Python values as JSON and back, with types kept apart; nothing of the reader's is called, nothing is executed.

None, bool, int, float and str are JSON's own (NaN and Infinity included), a list is an array; all else is an object
with one key that names its type. A huge value becomes the digest of its bytes. A value of any other type becomes an
OpaqueObject, which keeps its type's name only.
Written inside the sandbox (so with few imports, which cost every program its start), read outside.
"""

import marshal
from _json import encode_basestring_ascii

MAX_DEPTH, MAX_CLASHES, HUGE_BYTES = 100, 1000, 16 << 20
_SMALL = 1 << 63


class OpaqueObject:
    """A value that is no plain data, such as a match object or a generator. Equal to itself only."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name


class MalformedValue(ValueError):
    """What was sent is not the JSON of a plain value, or is made to be slow to read."""


def dumps_or_digest(value: object) -> str:
    """dumps, or for more than HUGE_BYTES a digest, which is equal where types, values and order are."""
    try:
        # Version 2 writes equal values alike, whatever they share.
        data = marshal.dumps(value, 2)
    except ValueError:
        data = b""
    if len(data) <= HUGE_BYTES:
        return dumps(value)
    import hashlib

    return f'{{"digest": "{hashlib.sha256(data).hexdigest()}"}}'


def dumps(value: object, depth: int = 0) -> str:
    """One line of JSON, in ASCII. Raises RecursionError for a value nested deeper than MAX_DEPTH (or in itself)."""
    if depth > MAX_DEPTH:
        raise RecursionError(f"a value nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    # Of subclasses the data of the base class counts: an IntEnum is an int, a Counter a dict.
    if isinstance(value, int):
        number = int.__int__(value)
        return repr(number) if -_SMALL < number < _SMALL else f'{{"int": "{number:x}"}}'
    if isinstance(value, float):
        text = repr(float.__float__(value))
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
    if isinstance(value, str):
        return encode_basestring_ascii(str.__str__(value))
    if isinstance(value, list):
        return _array(list.__iter__(value), depth)
    if isinstance(value, dict):
        return f'{{"dict": {_array(map(list, dict.items(value)), depth)}}}'
    for base in (tuple, set, frozenset):
        if isinstance(value, base):
            return f'{{"{base.__name__}": {_array(base.__iter__(value), depth)}}}'
    return _rare(value, kind, depth)


def _array(items: object, depth: int) -> str:
    return "[" + ", ".join([dumps(item, depth + 1) for item in items]) + "]"


def _rare(value: object, kind: type, depth: int) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is complex:
        return f'{{"complex": [{dumps(value.real)}, {dumps(value.imag)}]}}'
    if kind is bytes or kind is bytearray:
        return f'{{"{kind.__name__}": "{value.hex()}"}}'
    if name == "fractions.Fraction":
        return f'{{"fraction": ["{value.numerator:x}", "{value.denominator:x}"]}}'
    if name == "decimal.Decimal":
        return f'{{"decimal": "{value}"}}'
    if name.startswith("numpy.") and getattr(value, "ndim", 1) == 0:
        plain = value.item()
        if type(plain) is not kind:
            return dumps(plain, depth + 1)
    return f'{{"opaque": {encode_basestring_ascii(kind.__name__[:100])}}}'

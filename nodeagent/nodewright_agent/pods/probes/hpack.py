"""As much of HPACK (RFC 7541) as one request and its answer need: literal fields out, ``grpc-*`` and ``:status`` in.

We tell the peer that our dynamic table has no room, so that it refers to the static one only.
"""

from __future__ import annotations

from functools import cache

# Bits of each symbol's code, 0 to 255 and the end of the string, written as letters from A for 5. The code is
# canonical: the codes of one length follow each other in the order of the symbols (RFC 7541, appendix B).
_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJB"
    "KABABABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUO"
    "QVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)
_END = 256
# Of the static table's fields only these matter to us; their names and values by index.
_STATIC_FIELDS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
_STATIC_LAST = 61
_STATUS = ":status"


class HpackError(ValueError):
    """A header block that is not well formed, or that refers to a dynamic table."""


def encode(fields: list[tuple[str, str]]) -> bytes:
    """Write fields as literals that are never put into a table, without compression."""
    block = bytearray()
    for name, value in fields:
        block.append(0x10)
        for text in (name, value):
            data = text.encode()
            block += _integer(len(data), 7) + data
    return bytes(block)


def decode(block: bytes) -> dict[str, str]:
    """Read the fields of a header block; static names that do not matter are left out. Raises HpackError."""
    fields: dict[str, str] = {}
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:  # an entry of a table
                index, at = _read_integer(block, at, 7)
                _known(index)
                if index in _STATIC_FIELDS:
                    fields[_STATUS] = _STATIC_FIELDS[index]
            elif first & 0xE0 == 0x20:  # the table's new size
                _, at = _read_integer(block, at, 5)
            else:
                index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
                name, at = _read_string(block, at) if not index else (_name(index), at)
                value, at = _read_string(block, at)
                fields[name] = value
    except IndexError:
        raise HpackError("a header block ends too early") from None
    fields.pop("", None)
    return fields


def _known(index: int) -> None:
    if not 0 < index <= _STATIC_LAST:
        raise HpackError(f"header field {index} is not in the static table")


def _name(index: int) -> str:
    _known(index)
    return _STATUS if index in _STATIC_FIELDS else ""


def _integer(value: int, bits: int) -> bytes:
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    data = bytearray([limit])
    value -= limit
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 28:
            raise HpackError("a number in a header block is too large")


def _read_string(block: bytes, at: int) -> tuple[str, int]:
    compressed = bool(block[at] & 0x80)
    length, at = _read_integer(block, at, 7)
    data = block[at : at + length]
    if len(data) < length:
        raise HpackError("a header block ends too early")
    return (_uncompress(data) if compressed else data).decode(errors="replace"), at + length


@cache
def _codes() -> dict[tuple[int, int], int]:
    """Return the symbol of each (number of bits, code)."""
    lengths = [ord(letter) - ord("A") + 5 for letter in _LENGTHS]
    codes: dict[tuple[int, int], int] = {}
    code = previous = 0
    for symbol in sorted(range(len(lengths)), key=lambda one: (lengths[one], one)):
        code = (code + 1 if previous else 0) << (lengths[symbol] - (previous or lengths[symbol]))
        previous = lengths[symbol]
        codes[previous, code] = symbol
    return codes


def _uncompress(data: bytes) -> bytes:
    codes, text = _codes(), bytearray()
    code = bits = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, bits = code << 1 | byte >> shift & 1, bits + 1
            symbol = codes.get((bits, code))
            if symbol is None:
                continue
            if symbol == _END:
                raise HpackError("a compressed string contains its end")
            text.append(symbol)
            code = bits = 0
    if bits > 7 or code != (1 << bits) - 1:
        raise HpackError("a compressed string ends in the middle of a symbol")
    return bytes(text)

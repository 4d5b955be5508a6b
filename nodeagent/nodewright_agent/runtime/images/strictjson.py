"""JSON from strangers: bounded, no duplicate keys, no NaN, and one kind of error. Pure."""

import json
from typing import Any, NoReturn

from nodewright_agent.runtime.images.errors import ImageCorrupt


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers that disagree on which duplicate counts can be shown two different images (I09).
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key[:80]!r}")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def loads_any(data: bytes, what: str, *, limit: int) -> Any:
    """Parse at most `limit` bytes; `what` names the document in errors (ImageCorrupt)."""
    if len(data) > limit:
        raise ImageCorrupt(f"{what} is larger than {limit} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ImageCorrupt(f"{what} is not valid JSON: {detail}") from None


def loads(data: bytes, what: str, *, limit: int) -> dict[str, Any]:
    """Parse an object."""
    document = loads_any(data, what, limit=limit)
    if not isinstance(document, dict):
        raise ImageCorrupt(f"{what} is not a JSON object")
    return document


def text(value: Any, where: str, *, default: str = "") -> str:
    """A string field without NUL; null counts as absent."""
    if value is None:
        return default
    if not isinstance(value, str):
        raise ImageCorrupt(f"{where} must be a string")
    if "\0" in value:
        raise ImageCorrupt(f"{where} contains a NUL byte")
    return value


def texts(value: Any, where: str) -> list[str]:
    """A list of strings; null counts as empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImageCorrupt(f"{where} must be a list")
    return [text(item, f"{where}[{i}]") for i, item in enumerate(value)]


def text_map(value: Any, where: str) -> dict[str, str]:
    """A map of strings; null counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageCorrupt(f"{where} must be an object")
    return {text(key, where): text(item, f"{where}[{key!r}]") for key, item in value.items()}

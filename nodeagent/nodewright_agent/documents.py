"""Files that people write, in JSON or YAML: whatever is in them, they are read within bounds, or are told why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

MAX_DEPTH = 100
"""Lists and mappings within each other. PyYAML's C part follows them on the machine's stack, without a limit."""
MAX_VALUES = 200_000
"""Of one document; YAML's with what its aliases stand for: ten aliases of ten aliases of ... are many."""


class DocumentError(ValueError):
    """The text is no document, or out of bounds."""


def decode(data: bytes) -> list[Any]:
    """Read one document of JSON, or those of YAML; None stands for an empty one. Raises DocumentError."""
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return list(_yaml(data))  # not JSON: then it has to be YAML
    level, values = [found], 1
    for _ in range(MAX_DEPTH + 1):
        level = [one for value in level for one in _inside(value)]
        values += len(level)
        if values > MAX_VALUES:
            raise DocumentError(f"more than {MAX_VALUES} values")
        if not level:
            return [found]
    raise _too_deep()


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _yaml(data: bytes) -> Iterator[Any]:
    try:
        import yaml
    except ImportError:
        raise DocumentError("is not JSON, and PyYAML is not installed to read it as YAML") from None
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=kind):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _too_deep()
        loader = kind(data)
        while loader.check_node():
            node = loader.get_node()
            _measure(node, {})
            yield loader.construct_document(node)
    except RecursionError:
        raise _too_deep() from None
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, ArithmeticError, TypeError) as error:  # so PyYAML says it of `!!bool x`
        raise DocumentError(f"a value is not what its tag says: {error}") from None


def _measure(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Values and depth of a node with its aliases written out. Raises DocumentError where they are out of bounds."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise DocumentError("an alias stands within what it stands for")
        return measured
    known[id(node)] = None
    values, depth = 1, 0
    if isinstance(node.value, list):
        for one in node.value:
            for part in one if isinstance(one, tuple) else (one,):
                more, below = _measure(part, known)
                values, depth = values + more, max(depth, below)
        depth += 1
    if values > MAX_VALUES:
        raise DocumentError(f"more than {MAX_VALUES} values, with what its aliases stand for")
    if depth > MAX_DEPTH:
        raise _too_deep()
    known[id(node)] = values, depth
    return values, depth


def _too_deep() -> DocumentError:
    return DocumentError(f"nested deeper than {MAX_DEPTH} levels")

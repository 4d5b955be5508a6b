"""Manifests and dumps: YAML or JSON, several documents, lists of objects; each object knows where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from ..arguments import described

T = TypeVar("T")
Body = dict[str, Any]


class ManifestError(ValueError):
    """No manifest, or an object that is not as the API wants it. Names the file, the place in it and the field."""


class Document(msgspec.Struct):
    """One object, as it stands in a file."""

    source: str
    # "document 2", with the place in a list behind it.
    at: str
    body: Body
    # Where in the object the part in question is: "spec.template." or "".
    field: str = ""

    @property
    def kind(self) -> str:
        """The kind; "" for none."""
        return str(self.body.get("kind") or "")

    @property
    def group(self) -> str:
        """The API group; "" for core."""
        group, slash, _ = str(self.body.get("apiVersion") or "").partition("/")
        return group if slash else ""

    @property
    def meta(self) -> Body:
        """The metadata. Raises ManifestError where it is no mapping."""
        found = self.body.get("metadata") or {}
        if not isinstance(found, dict):
            raise self.error("metadata: must be a mapping")
        return found

    @property
    def title(self) -> str:
        """`Deployment default/web`."""
        meta = self.body.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        name = str(meta.get("name") or meta.get("generateName") or "")
        namespace = str(meta.get("namespace") or "")
        return f"{self.kind} {namespace}/{name}" if namespace else f"{self.kind} {name}".rstrip()

    @property
    def place(self) -> str:
        """`web.yaml, document 2 (Deployment default/web)`."""
        return f"{self.source}, {self.at} ({self.title})"

    def error(self, why: str) -> ManifestError:
        """An error about this object; `why` starts with the field."""
        return ManifestError(f"{self.place}: {self.field}{why}")

    def convert(self, kind: type[T], body: Body | None = None) -> T:
        """The object as a struct. Raises ManifestError."""
        try:
            # By way of JSON: some structs keep a part of it as it came.
            return msgspec.json.decode(msgspec.json.encode(self.body if body is None else body), type=kind)
        except msgspec.ValidationError as error:
            raise self.error(described(error)) from error

    def number(self, parent: Body, key: str, default: int, field: str) -> int:
        """A whole number of at least zero. Raises ManifestError."""
        value = parent.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"{field}.{key}: must be a whole number of at least 0, not {value!r}")
        return value

    def mapping(self, parent: Body, key: str, field: str, *, required: bool = False) -> Body:
        """A mapping below another. Raises ManifestError."""
        value = parent.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, dict):
            raise self.error(f"{field}{key}: {'Required value' if value is None else 'must be a mapping'}")
        return value


def read(text: str, source: str) -> list[Document]:
    """All objects of a text, lists taken apart. Raises ManifestError."""
    found: list[Document] = []
    for number, body in enumerate(_parse(text, source), 1):
        if body is not None:
            found += _objects(body, source, f"document {number}")
    return found


def _objects(body: Any, source: str, at: str) -> Iterator[Document]:
    if not isinstance(body, dict):
        raise ManifestError(f"{source}, {at}: expected an object with apiVersion and kind, not {type(body).__name__}")
    kind = body.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ManifestError(f"{source}, {at}: kind: Required value")
    items = body.get("items")
    if not kind.endswith("List") or (items is not None and not isinstance(items, list)):
        yield Document(source, at, body)
        return
    for index, item in enumerate(items or []):
        if isinstance(item, dict) and "kind" not in item and kind != "List":
            item = {"apiVersion": body.get("apiVersion"), "kind": kind.removesuffix("List"), **item}
        yield from _objects(item, source, f"{at}, items[{index}]")


def _parse(text: str, source: str) -> Iterator[Any]:
    if text.lstrip()[:1] == "{":
        try:
            yield msgspec.json.decode(text)
            return
        except msgspec.DecodeError:
            pass  # YAML has braces too, and says better what is wrong
    import yaml

    try:
        yield from yaml.load_all(text, _loader())
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ManifestError(f"{source}: not YAML: {problem}") from error


def _loader() -> Any:
    """The fast safe loader, without timestamps: times are text to the API."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    return type("ManifestLoader", (base,), {"yaml_implicit_resolvers": resolvers})

"""Revision history: which ControllerRevision holds the current template, and which may go. Pure.

A revision is found by what it contains (see `canonical`), never by its hash: the hash is only a name. So the history of
another controller, with other hashes, is taken over without a rollout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import msgspec

from nodewright.controllers.daemonset.canonical import canonical_bytes
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Revision
from nodewright.kube.resources import Resource

Json = dict[str, Any]

HISTORY_LIMIT = 10
# As upstream's SafeEncodeString: no vowels and no look-alikes, so that no hash spells a word.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
# kubectl's copy of the whole manifest would double every revision and helps nobody there.
_NOT_COPIED = "kubectl.kubernetes.io/last-applied-configuration"

_GO_ESCAPES = tuple((c.encode(), f"\\u{ord(c):04x}".encode()) for c in "<>&\u2028\u2029")


def owner_reference(resource: Resource, name: str, uid: str) -> Json:
    """The controller reference that pods and revisions carry."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


_REMEMBERED = 4096
_meanings: dict[bytes, bytes] = {}


class History(msgspec.Struct):
    """Revisions of a DaemonSet: those that hold the current template, newest first, and the others, oldest first."""

    current: list[Revision]
    old: list[Revision]

    @property
    def next_number(self) -> int:
        """The revision number that the current template must have: above all others."""
        return max((r.revision for r in self.old), default=0) + 1


def split(ds: DaemonSet, revisions: Iterable[Revision]) -> History:
    """Sort the DaemonSet's revisions into current and old."""
    history = History([], [])
    for revision in sorted(revisions, key=lambda r: (r.revision, r.metadata.name)):
        (history.current if holds_template(ds, revision) else history.old).append(revision)
    history.current.reverse()
    return history


def holds_template(ds: DaemonSet, revision: Revision) -> bool:
    """Whether the revision holds the DaemonSet's current template."""
    wanted = _meaning(b"template", bytes(ds.spec.template), lambda: msgspec.json.decode(ds.spec.template))
    return _meaning(b"revision", bytes(revision.data), lambda: template_of(revision)) == wanted


def _meaning(kind: bytes, text: bytes, parse: Callable[[], Json | None]) -> bytes:
    """A digest of the normal form of a template, remembered by its text: each pass asks for all revisions' again."""
    key = hashlib.sha256(kind + text).digest()
    found = _meanings.get(key)
    if found is None:
        template = parse()
        found = hashlib.sha256(canonical_bytes(template)).digest() if template is not None else b""
        if len(_meanings) >= _REMEMBERED:
            _meanings.clear()
        _meanings[key] = found
    return found


def template_of(revision: Revision) -> Json | None:
    """The pod template that a revision holds, without the patch directive; None when it holds none."""
    try:
        data = msgspec.json.decode(revision.data)
        template = dict(data["spec"]["template"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None
    template.pop("$patch", None)
    return template


def template_hash(template: Json, collision_count: int) -> str:
    """A name for the template: 10 characters that change with it and with the collision count."""
    digest = hashlib.sha256(canonical_bytes(template) + b"/%d" % collision_count).digest()
    number = int.from_bytes(digest[:8])
    text = ""
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        text += _ALPHABET[index]
    return text


def new_revision(resource: Resource, ds: DaemonSet, number: int) -> Json:
    """The ControllerRevision for the current template, as JSON; its data is what `kubectl rollout undo` applies."""
    template: Json = msgspec.json.decode(ds.spec.template)
    hash_value = template_hash(template, ds.status.collision_count or 0)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: hash_value}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{ds.metadata.name}-{hash_value}",
            "namespace": ds.metadata.namespace,
            "labels": labels,
            "annotations": {k: v for k, v in ds.metadata.annotations.items() if k != _NOT_COPIED},
            "ownerReferences": [owner_reference(resource, ds.metadata.name, ds.metadata.uid)],
        },
        "data": msgspec.Raw(stored_form({"spec": {"template": {**template, "$patch": "replace"}}})),
        "revision": number,
    }


def stored_form(data: Json) -> bytes:
    """JSON byte for byte as Go writes a map: sorted, compact, HTML's characters escaped.

    The API server keeps a revision's data as it was sent, and refuses any change of its bytes; yet a strategic patch of
    its metadata (the garbage collector's way to orphan it) writes the data anew. In any other form, such a patch fails
    for ever, and with it `kubectl delete --cascade=orphan`.
    """
    text = msgspec.json.encode(data, order="sorted")
    for character, escape in _GO_ESCAPES:
        text = text.replace(character, escape)  # outside of strings, JSON has none of them
    return text


def expired(old: Iterable[Revision], limit: int | None, live: Set[str]) -> list[Revision]:
    """The old revisions beyond the limit (10 by default), oldest first, save those whose hash a pod still carries."""
    ordered = sorted(old, key=lambda r: (r.revision, r.metadata.name))
    surplus = len(ordered) - (HISTORY_LIMIT if limit is None else limit)
    gone: list[Revision] = []
    for revision in ordered:
        if len(gone) >= surplus:
            break
        if revision.hash not in live:
            gone.append(revision)
    return gone


def live_hashes(pods: Iterable[Mapping[str, str]]) -> set[str]:
    """The revision hashes in the given pods' labels."""
    return {labels[HASH_LABEL] for labels in pods if HASH_LABEL in labels}

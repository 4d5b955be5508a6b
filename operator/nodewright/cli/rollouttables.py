"""The revisions of a DaemonSet, for people."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
import yaml
from rich.markup import escape

from nodewright.cli.output import print_table
from nodewright.controllers.daemonset.canonical import Json, canonical
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Pod
from nodewright.controllers.daemonset.outside import Recorded
from nodewright.controllers.daemonset.revisions import template_of
from nodewright.kube.times import seconds_since

_IMAGES = 3


class Entry(msgspec.Struct, frozen=True):
    """A revision. `current` is the one that was rolled out to its end last, `update` holds today's template."""

    revision: int
    change_cause: str
    hash: str
    created: str
    images: list[str]
    pods: int
    current: bool
    update: bool


def entries(ds: DaemonSet, recorded: Iterable[Recorded], pods: Iterable[Pod]) -> list[Entry]:
    """The history, the oldest number first."""
    carried = Counter(pod.metadata.labels.get(HASH_LABEL, "") for pod in pods)
    wanted = canonical(msgspec.json.decode(ds.spec.template))
    found = []
    for each in recorded:
        revision, template = each.revision, template_of(each.revision) or {}
        entry = Entry(
            revision=revision.revision,
            change_cause=each.change_cause,
            hash=revision.hash,
            created=revision.metadata.creation_timestamp or "",
            images=_images(template),
            pods=carried[revision.hash],
            current=revision.hash == ds.status.current_revision,
            update=canonical(template) == wanted,
        )
        found.append(entry)
    return found


def _images(template: Json) -> list[str]:
    spec = template.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return list(dict.fromkeys(str(container.get("image", "")) for container in containers))


def print_history(title: str, found: Sequence[Entry], now: datetime) -> None:
    """Print all revisions, in kubectl's order."""
    print(title)
    rows = []
    for entry in found:
        marks = [name for name, is_so in (("current", entry.current), ("update", entry.update)) if is_so]
        age = human_age(seconds_since(entry.created, now)) if entry.created else ""
        more = f" and {len(entry.images) - _IMAGES} more" if len(entry.images) > _IMAGES else ""
        images = ",".join(entry.images[:_IMAGES]) + more
        cells = [str(entry.revision), entry.change_cause or "<none>", entry.hash, age, images, str(entry.pods)]
        rows.append([escape(cell) for cell in (*cells, ", ".join(marks))])
    print_table(["revision", "change-cause", "hash", "age", "images", "pods", ""], rows)


def template_text(template: Json) -> str:
    """A template as YAML, without what API servers add."""
    return str(yaml.safe_dump(canonical(template), sort_keys=False, allow_unicode=True))


def difference(old: Json, new: Json, old_name: str, new_name: str) -> str:
    """What changes from one template to another, as a unified diff of their YAML; "" where they mean the same."""
    before, after = (template_text(each).splitlines(keepends=True) for each in (old, new))
    return "".join(difflib.unified_diff(before, after, old_name, new_name))


def human_age(seconds: float) -> str:
    """Seconds for people, in kubectl's short form: 45s, 7m, 3h, 12d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"

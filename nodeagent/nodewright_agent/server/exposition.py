"""Metric families in Prometheus' text format: upstream's names do not all follow the client library's rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def family(name: str, about: str, kind: str, values: Iterable[tuple[str, str]], stamp: int | None = None) -> list[str]:
    """Write one family of samples, given as labels (see ``labels``) and value; nothing when there are none.

    ``stamp`` is the time of all samples, in milliseconds since the epoch.
    """
    tail = "" if stamp is None else f" {stamp}"
    lines = [f"{name}{where} {value}{tail}" for where, value in values]
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines] if lines else []


def labels(pairs: Mapping[str, str]) -> str:
    """Write labels in braces, in the order of their names; empty where there are none."""
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in sorted(pairs.items())) + "}"


def escape(text: str) -> str:
    """Escape a label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def seconds(nanoseconds: int) -> str:
    """Write nanoseconds as seconds."""
    return f"{nanoseconds / 1e9:.9f}"

"""What credential providers get to know of a Pod, apart from them: a node without any does not load their code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from nodewright_agent.runtime.images.credentials import Origin


class ProviderError(Exception):
    """A provider gave no usable answer; the text has nothing of the answer, which may be secret."""


class Account(NamedTuple):
    """A Pod's ServiceAccount as a provider gets to see it."""

    origin: Origin
    annotations: Mapping[str, str]
    """All that it has."""
    token: Callable[[str], Awaitable[str]]
    """Gives a token for an audience."""


Accounts = Callable[[], Awaitable[Account | None]]
"""Looks a Pod's ServiceAccount up; None: the Pod has none."""

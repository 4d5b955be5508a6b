"""What the two services work with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from nodewright_agent.cri.events import Events
from nodewright_agent.cri.imagemounts import ImageMounts
from nodewright_agent.cri.network import Network
from nodewright_agent.cri.records import Records
from nodewright_agent.cri.settings import Settings
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes


@dataclass(slots=True)
class Parts:
    """The parts of one server."""

    settings: Settings
    runtime: Runtime
    sandboxes: Sandboxes
    images: ImageStore
    network: Network
    records: Records
    volumes: ImageMounts
    userns_problem: str = ""
    """Why there are no user namespaces for sandboxes; empty: there are."""
    events: Events = field(default_factory=Events)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By sandbox: what changes a sandbox or one of its containers happens one after the other."""

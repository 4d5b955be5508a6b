"""What the proxy asks of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from nodewright_agent.proxy.model import Delta, Table


class BackendOptions(NamedTuple):
    """Settings that backends need; the rules of Kubernetes are in the table already."""

    pod_cidrs: tuple[str, ...] = ()
    """Sources inside are in the cluster."""
    ipvs_scheduler: str = "rr"
    ipv6: bool = True
    """Whether to serve IPv6, where the kernel has it."""


class Traffic(NamedTuple):
    """What a frontend was sent."""

    connections: int
    bytes: int


class BackendError(RuntimeError):
    """The kernel did not take the table; the message says which part and why."""


class Backend(Protocol):
    """Makes the kernel of the current network namespace match a table.

    Calls block: they are made one at a time, from any thread. A call that raises leaves the kernel in an unknown
    state; the next one has to be `replace`. Nothing but the backend's own objects is touched.
    """

    name: str

    def open(self) -> None:
        """Open sockets in the current network namespace and prepare what needs no table (sysctls, links)."""

    def replace(self, table: Table) -> None:
        """Make the kernel match, whatever is there now; connections that stay valid survive."""

    def apply(self, delta: Delta) -> None:
        """Change what is in the kernel by a difference."""

    def verify(self) -> list[str]:
        """Compare the kernel with what was programmed; gives what differs, for people."""

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call `changed(reason)` in the running loop when somebody else alters our rules; gives the way to stop."""

    def upkeep(self) -> float | None:
        """Do work that waits for connections to end; gives the seconds after which to call again, None for never."""

    def counters(self) -> dict[bytes, Traffic]:
        """Give what each frontend was sent, by frontend key; empty where the kernel does not count."""

    def describe(self, key: bytes) -> list[str]:
        """Name the kernel's objects that carry one frontend, for people."""

    def cleanup(self) -> None:
        """Remove everything of ours from the kernel."""

    def close(self) -> None:
        """Close the sockets; rules stay."""


@runtime_checkable
class Draining(Protocol):
    """A backend whose connections end with its rules, because the kernel keeps their translation there."""

    def retire(self) -> float | None:
        """Take no new connections, after another backend has taken over; may be called again and again.

        Gives the seconds after which to ask again, None once no connection is left.
        """

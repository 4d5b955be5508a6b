"""What an OCI runtime says that it can do: its ``features`` command (OCI runtime specification 1.1)."""

from __future__ import annotations

import msgspec

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.hostspace import HostSpace


class RuntimeFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What of it Kubernetes asks for."""

    recursive_read_only: bool = False
    """Mounts can be read-only with all that is mounted below them (``rro``)."""
    user_namespaces: bool = False


class _Linux(msgspec.Struct):
    namespaces: list[str] = []


class _Document(msgspec.Struct, rename="camel"):
    mount_options: list[str] = []
    linux: _Linux = msgspec.field(default_factory=_Linux)


def parse(data: bytes) -> RuntimeFeatures:
    """Read what the command printed; nothing is known of one that says something else. Pure."""
    try:
        said = msgspec.json.decode(data, type=_Document)
    except msgspec.DecodeError:
        return RuntimeFeatures()
    return RuntimeFeatures(
        recursive_read_only="rro" in said.mount_options, user_namespaces="user" in said.linux.namespaces
    )


async def ask(program: str, host: HostSpace) -> RuntimeFeatures:
    """Ask a program of the host. Those older than the command know neither feature."""
    try:
        code, output = await processes.run(host.command([program, "features"]), timeout=10)
    except (OSError, TimeoutError):
        return RuntimeFeatures()
    return parse(output) if code == 0 else RuntimeFeatures()

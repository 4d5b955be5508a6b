"""Host ports in use, by port, since few Pods have any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..pods import ANY_ADDRESS, HostPort


class PortIndex:
    """Which rows use which host ports, and at which addresses."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], dict[int, Counter[str]]] = {}

    def add(self, row: int, ports: Iterable[HostPort]) -> None:
        """A Pod with these ports is at the row."""
        for port in ports:
            at = self._rows.setdefault((port.protocol, port.port), {})
            at.setdefault(row, Counter())[port.ip or ANY_ADDRESS] += 1

    def remove(self, row: int, ports: Iterable[HostPort]) -> None:
        """A Pod with these ports has left the row."""
        for port in ports:
            key, address = (port.protocol, port.port), port.ip or ANY_ADDRESS
            counts = self._rows[key][row]
            counts[address] -= 1
            if not counts[address]:
                del counts[address]
            if not counts:
                del self._rows[key][row]
            if not self._rows[key]:
                del self._rows[key]

    def conflicts(self, port: HostPort) -> Iterator[int]:
        """Rows where the port is taken: at the same address, or where either side asks for all addresses."""
        address = port.ip or ANY_ADDRESS
        for row, counts in self._rows.get((port.protocol, port.port), {}).items():
            if address == ANY_ADDRESS or address in counts or ANY_ADDRESS in counts:
                yield row

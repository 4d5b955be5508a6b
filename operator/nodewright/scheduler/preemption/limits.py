"""How long to look for candidates."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How many candidates to find before choosing: a share of the nodes in question (percent), but at least so many."""

    percentage: int = 10
    absolute: int = 100

    def of(self, nodes: int) -> int:
        """The number of candidates for that many nodes in question."""
        return min(max(nodes * self.percentage // 100, self.absolute), nodes)

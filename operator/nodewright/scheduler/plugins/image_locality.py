"""ImageLocality: prefer nodes that hold the Pod's images already."""

from __future__ import annotations

import numpy as np

from ..events import Event
from ..plugin import MAX_SCORE, Context, Plugin, Scope
from ..pods import PodPart
from ..state.arrays import IntArray

MEGABYTE = 1024 * 1024
MIN_THRESHOLD = 23 * MEGABYTE
MAX_CONTAINER_THRESHOLD = 1000 * MEGABYTE


class ImageLocality(Plugin):
    """Scores by the size of the images present, scaled by how many nodes have them, so that no node runs hot."""

    name = "ImageLocality"
    weight = 1
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = Event.NONE

    def score(self, ctx: Context) -> IntArray | None:
        """0 below 23 MiB in sum, 100 from 1000 MiB per container on; None where no node holds any of the images."""
        state = ctx.nodes.state
        sums: IntArray | None = None
        for image in ctx.pod.template.images:
            held = state.images.get(normalized_name(image))
            if held is None:
                continue
            if sums is None:
                sums = np.zeros(len(ctx.nodes), dtype=np.int64)
            # In floating point and truncated, as upstream does.
            scaled = int(float(held.size) * (len(held.rows) / state.node_count))
            sums += scaled * ctx.nodes.mask_of_rows(held.rows)
        if sums is None:
            return None
        spec = ctx.pod.spec
        highest = MAX_CONTAINER_THRESHOLD * (len(spec.containers) + len(spec.init_containers))
        scores: IntArray = MAX_SCORE * (np.clip(sums, MIN_THRESHOLD, highest) - MIN_THRESHOLD)
        scores //= highest - MIN_THRESHOLD
        return scores


def normalized_name(image: str) -> str:
    """The name with `:latest` where it has no tag."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"

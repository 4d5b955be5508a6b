"""Which nodes hold which images, for ImageLocality."""

from __future__ import annotations

from ..objects import Node


class ImageState:
    """An image name: its size in bytes as the first node reported it, and the rows that hold it."""

    __slots__ = ("rows", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: set[int] = set()


class ImageIndex:
    """Image name to size and rows. Names are as nodes report them."""

    def __init__(self) -> None:
        self._images: dict[str, ImageState] = {}

    def get(self, name: str) -> ImageState | None:
        """What is known of an image, or None when no node has it."""
        return self._images.get(name)

    def add(self, row: int, node: Node) -> None:
        """The node at the row holds these images."""
        for image in node.status.images:
            for name in image.names or ():
                state = self._images.get(name)
                if state is None:
                    state = self._images[name] = ImageState(image.size_bytes)
                state.rows.add(row)

    def remove(self, row: int, node: Node) -> None:
        """Forget the images of the node at the row."""
        for image in node.status.images:
            for name in image.names or ():
                state = self._images.get(name)
                if state is not None:
                    state.rows.discard(row)
                    if not state.rows:
                        del self._images[name]

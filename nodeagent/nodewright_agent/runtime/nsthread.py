"""Work in another namespace: in a thread that ends with it, for one that has changed namespaces is of no other use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nodewright_agent.runtime import syscalls

T = TypeVar("T")


def run_in(namespace: str | Path, kind: int, work: Callable[[], T]) -> T:
    """Run ``work`` in the namespace that the file ``namespace`` stands for; give its result or raise what it raised.

    ``kind`` is its CLONE_NEW... flag. Blocks. In another mount namespace ``work`` must not import, and finds its own
    mounts in /proc/thread-self. Raises OSError where the namespace cannot be entered.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            if kind == syscalls.CLONE_NEWNS:
                # A thread that shares its root and working directory with others cannot change this one.
                syscalls.unshare(syscalls.CLONE_FS)
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd, kind)
            finally:
                os.close(fd)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

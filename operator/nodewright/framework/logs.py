"""Log context: every line written during a reconciliation carries its controller, object and reconcileID."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

_context: ContextVar[dict[str, str] | None] = ContextVar("nodewright_log_context", default=None)


class ContextFilter(logging.Filter):
    """Adds the current context to a record, where the formatter of `nodewright.kube.logs` finds it among the extras."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass."""
        for name, value in (_context.get() or {}).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def install(logger: logging.Logger | None = None) -> None:
    """Put the filter on the handlers of the logger (the root by default); safe to repeat."""
    for handler in (logger or logging.getLogger()).handlers:
        if not any(isinstance(f, ContextFilter) for f in handler.filters):
            handler.addFilter(ContextFilter())


@contextlib.contextmanager
def reconcile_context(controller: str, key: str) -> Iterator[str]:
    """Set the context for one reconciliation of `namespace/name` (or `name`); gives the reconcileID.

    Attribute names avoid those of LogRecord: `name` is the logger's there, so the object's is `object`.
    """
    namespace, _, name = key.rpartition("/")
    reconcile_id = secrets.token_hex(4)
    values = {"controller": controller, "object": name, "reconcileID": reconcile_id}
    if namespace:
        values["namespace"] = namespace
    token = _context.set(values)
    try:
        yield reconcile_id
    finally:
        _context.reset(token)

"""An operator in a thread with an event loop of its own: kopf takes every task in its loop for its own, tests too."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from nodewright.framework.process import Operator, Options


class OperatorThread:
    """Runs one Operator; `ended` has its outcome."""

    def __init__(self, options: Options, controllers, reviewers=None):
        self.operator = Operator(options, controllers, reviewers=reviewers)
        self.started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._running.wait()

    def _run(self):
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _main(self):
        self._loop = asyncio.get_running_loop()
        watcher = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        self._running.set()
        try:
            await self.operator.run()
        finally:
            watcher.cancel()
            # kopf closes its TLS connections without waiting for them; what is open when the loop ends, is reported.
            await asyncio.sleep(0.2)

    async def _watch(self):
        await self.operator.started.wait()
        self.started.set_result(None)

    async def wait_started(self, timeout: float = 20.0):
        """Until its workers run; raises what made it fail before."""
        await _first_of(self.started, self.ended, timeout=timeout)
        if self.ended.done():
            self.ended.result()

    def call(self, fn: Callable[[], Any]) -> None:
        """Call something in the operator's loop, and wait for it."""
        done = threading.Event()

        def act():
            try:
                fn()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait()

    async def stop(self, timeout: float = 20.0):
        """An orderly end; raises what made it fail."""
        if not self.ended.done():
            self._loop.call_soon_threadsafe(self.operator.stop)
        await self.wait_ended(timeout)

    async def wait_ended(self, timeout: float = 20.0):
        """Until it has ended; raises what made it fail."""
        await _first_of(self.ended, timeout=timeout)
        self.ended.result()


async def _first_of(*futures: concurrent.futures.Future, timeout: float) -> None:
    """Wait without asyncio.wrap_future, whose cancellation would reach the other thread's futures."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def notify(_future):
        with contextlib.suppress(RuntimeError):  # the waiting loop may be closed by now
            loop.call_soon_threadsafe(event.set)

    for future in futures:
        future.add_done_callback(notify)
    async with asyncio.timeout(timeout):
        await event.wait()

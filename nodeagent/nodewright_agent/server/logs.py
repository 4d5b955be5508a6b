"""GET /containerLogs/{namespace}/{pod}/{container}."""

from __future__ import annotations

import errno
import logging
import os

from aiohttp import web

from nodewright.kube import times
from nodewright_agent.server import logchoice, logfile, logoptions
from nodewright_agent.server.following import DirectoryWatcher
from nodewright_agent.server.logstream import LogStream
from nodewright_agent.server.view import PodsView

logger = logging.getLogger(__name__)


class LogsHandler:
    """Serves logs of containers. Answers and texts are kubelet's, which kubectl shows as they are."""

    def __init__(self, pods: PodsView) -> None:
        """Take the view of the agent's pods."""
        self._pods = pods
        self._watcher = DirectoryWatcher()

    def close(self) -> None:
        """Wake and end what still follows."""
        self._watcher.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        container = request.match_info["container"]
        try:
            options = logoptions.parse(request.query, times.now())
        except logoptions.BadQuery as error:
            return _error(error.status, str(error))
        pod = next((p for p in self._pods.pods() if (p.metadata.namespace, p.metadata.name) == (namespace, name)), None)
        if pod is None:
            return _error(404, f'pod "{name}" does not exist')
        if not logchoice.has_container(pod, container):
            return _error(404, f'container "{container}" not found in pod "{name}"')
        try:
            container_id = logchoice.container_id(pod, container, options.previous)
        except logchoice.NoLog as error:
            return _error(400, str(error))
        parts = self._pods.log_parts(pod, container, container_id)
        if parts is None:
            return _error(400, f"unable to retrieve container logs for {container_id}")
        return await self._stream(request, options, container_id, parts)

    async def _stream(
        self, request: web.Request, options: logoptions.LogOptions, container_id: str, parts: tuple[str, ...]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        directory = stream = None
        try:
            directory = logfile.open_directory(self._pods.log_root, parts[:-1])
            stream = LogStream(directory, parts[-1], options, response.write)
            await stream.start()
            await response.prepare(request)  # at once, so that a client that follows knows that it is connected
            if options.follow:
                await stream.follow(self._watcher, self._pods.wait_exited(container_id))
            else:
                await stream.copy()
            await response.write_eof()
        except logfile.UnsafeLog as error:
            logger.error("log of %s is not read: %s", container_id, error, extra={"path": "/".join(parts)})
            return self._broken(response, 500, f"unable to retrieve container logs for {container_id}: {error}")
        except FileNotFoundError:
            return self._broken(response, 400, f"unable to retrieve container logs for {container_id}: no log file")
        except ConnectionError:
            pass  # the client went away
        except OSError as error:
            logger.error("log of %s: %s", container_id, error, extra={"path": "/".join(parts)})
            status = 503 if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOSPC) else 500
            return self._broken(response, status, f"unable to retrieve container logs for {container_id}: {error}")
        finally:
            if stream is not None:
                stream.close()
            if directory is not None:
                os.close(directory)
        return response

    def _broken(self, response: web.StreamResponse, status: int, text: str) -> web.StreamResponse:
        """Give the error as an answer if none has begun; else break it off, so that it can't pass for complete."""
        if not response.prepared:
            return _error(status, text)
        response.force_close()
        raise ConnectionResetError(text)


def _error(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")

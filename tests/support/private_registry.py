"""A registry whose only image is not for everybody, and the Secret that opens it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from pathlib import Path
from typing import Any

from support.bad_registry import BadRegistry, basic, guard, serve
from support.image_makers import entry, folder, image, symlink, tar
from support.pod_lab import PodLab


class PrivateRegistry(BadRegistry):
    """Gives one image, that Pods of the lab can run, to user:right; in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner, self.host = self._do(serve(guard(self, basic("user", "right"))))
        program = Path(shutil.which("busybox") or "").read_bytes()
        links = [symlink(f"bin/{name}", "busybox") for name in ("sh", "sleep")]
        roots = [folder(name) for name in ("bin", "dev", "etc", "proc", "sys", "tmp")]
        self.image = self.serve(image(tar(*roots, entry("bin/busybox", data=program, mode=0o755), *links)))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """Go away; what is connected is cut off."""
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def make_secret(lab: PodLab, name: str, host: str, password: str) -> None:
    config = json.dumps({"auths": {host: {"auth": base64.b64encode(f"user:{password}".encode()).decode()}}})
    data = {".dockerconfigjson": base64.b64encode(config.encode()).decode()}
    body = {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "data": data}
    lab.api.create_namespaced_secret(lab.namespace, body)

"""The demo image: Debian's static busybox and a small web server, as an OCI archive. Made locally, bit for bit the same
from the same busybox, so that the demo needs no registry.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, Final

from nodewright_agent.runtime.images.errors import ErrImagePull
from nodewright_agent.runtime.images.fsutil import write_atomically
from nodewright_agent.runtime.images.manifest import OCI_INDEX, OCI_MANIFEST, Platform

DEMO_IMAGE: Final = "localhost/nodewright-demo:1"
DEMO_PORT: Final = 8080

# The applets that an interactive user and the examples want; all are links to one file.
_APPLETS: Final = (
    "sh", "ash", "cat", "chmod", "cp", "cut", "date", "dd", "df", "echo", "env", "false", "free", "grep", "head",
    "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "netstat", "nslookup", "ping",
    "printf", "ps", "pwd", "rm", "sed", "seq", "sleep", "sort", "stat", "stty", "tail", "tar", "tee", "test", "top",
    "touch", "tr", "true", "uname", "vi", "wc", "wget", "which", "whoami", "xargs", "yes",
)  # fmt: skip

# PID 1 ignores signals without a handler: without the trap, deletion would take the whole grace period. busybox's httpd
# answers each request in a process of its own; `wait` returns as soon as the signal comes.
_SERVE: Final = f"""#!/bin/sh
# Answers every request for /cgi-bin/who, and /, with who answered.
port="${{PORT:-{DEMO_PORT}}}"
httpd -f -p "$port" -h /www &
server=$!
trap 'kill "$server"; exit 0' TERM INT
echo "$(hostname): listening on port $port"
wait "$server"
"""
_WHO: Final = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "pod=${POD_NAME:-$(hostname)} host=$(hostname) node=${NODE_NAME:-unknown} client=$REMOTE_ADDR"
"""
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
# httpd runs cgi-bin/index.cgi for a directory without an index page: the bare address answers, too.
_SCRIPTS: Final = {"bin/serve": _SERVE, "www/cgi-bin/who": _WHO, "www/cgi-bin/index.cgi": _WHO}


def _member(name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), target
    return info, data


def _layer(busybox: bytes) -> bytes:
    members = [_member(name, tarfile.DIRTYPE, 0o755) for name in ("bin", "dev", "etc", "proc", "root", "sys")]
    members += [_member("tmp", tarfile.DIRTYPE, 0o1777)]
    members += [_member(name, tarfile.DIRTYPE, 0o755) for name in ("www", "www/cgi-bin")]
    members += [_member("bin/busybox", tarfile.REGTYPE, 0o755, busybox)]
    members += [_member(f"bin/{applet}", tarfile.SYMTYPE, 0o777, target="busybox") for applet in _APPLETS]
    members += [_member(name, tarfile.REGTYPE, 0o644, text.encode()) for name, text in _FILES.items()]
    members += [_member(name, tarfile.REGTYPE, 0o755, text.encode()) for name, text in _SCRIPTS.items()]
    return _tar(members)


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Owner 0:0 and time 0 throughout: the same input gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def build(busybox: bytes, name: str = DEMO_IMAGE) -> bytes:
    """The OCI archive for a static busybox program."""
    layer = _layer(busybox)
    packed = gzip.compress(layer, 6, mtime=0)
    config = _json(
        {
            "architecture": Platform.of_this_machine().architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Cmd": ["/bin/serve"],
                "Env": ["PATH=/bin"],
                "ExposedPorts": {f"{DEMO_PORT}/tcp": {}},
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
        }
    )
    entry = _descriptor(OCI_MANIFEST, manifest)
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    entry["platform"] = {"os": "linux", "architecture": Platform.of_this_machine().architecture}
    index = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    files = {f"blobs/sha256/{_sha256(data)}": data for data in (config, manifest, packed)}
    files |= {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index}
    return _tar([_member(path, tarfile.REGTYPE, 0o644, data) for path, data in sorted(files.items())])


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{_sha256(data)}", "size": len(data)}


def write(output: Path, busybox: Path | None = None, name: str = DEMO_IMAGE) -> None:
    """Write the demo image's archive; raises ErrImagePull when there is no static busybox (Debian: busybox-static)."""
    found = busybox or shutil.which("busybox")
    if found is None:
        raise ErrImagePull("busybox is not installed; the demo image is made from Debian's busybox-static")
    program = Path(found).read_bytes()
    if b"/ld-linux" in program[:4096] or b"/ld-musl" in program[:4096]:
        raise ErrImagePull(f"{found} is not a static program; install Debian's busybox-static")
    write_atomically(output, build(program, name), mode=0o644, sync=False)

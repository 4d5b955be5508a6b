"""Debian's containerd with CNI plugins: what it needs, how it is configured, and the images that it starts with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodewright_agent.runtime.images import demo
from support.image_makers import entry, image, oci_files, tar, write_archive

PAUSE = "localhost/pause:1"
_CNI = Path("/usr/lib/cni")
_PAUSE_SOURCE = Path(__file__).parents[1] / "bench" / "pause.c"


def missing(plugins: Sequence[str]) -> list[str]:
    """The programs and CNI plugins that this machine lacks."""
    programs = [name for name in ("containerd", "ctr", "gcc", "containerd-shim-runc-v2") if not shutil.which(name)]
    return programs + [str(_CNI / name) for name in plugins if not (_CNI / name).exists()]


def configure(directory: Path, *, socket: Path, bridge: str, cidr: str, ports: bool) -> Path:
    """Write the configuration of one that keeps all it has below ``directory``; ``ports``: with host ports."""
    network = directory / "net.d"
    network.mkdir(exist_ok=True)
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": cidr}]], "dataDir": str(directory / "ipam")},
        }
    ]
    if ports:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    conflist = {"cniVersion": "0.4.0", "name": bridge, "plugins": plugins}
    (network / "10-test.conflist").write_text(json.dumps(conflist))
    config = directory / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{directory}/root"
state = "{directory}/run"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI}"
    conf_dir = "{network}"
"""
    )
    return config


def import_images(directory: Path, socket: Path) -> None:
    """Give it the pause image and the demo image."""
    pause, archive = directory / "pause.tar", directory / "demo.tar"
    demo.write(archive)
    write_archive(pause, oci_files((_pause_image(directory), PAUSE)))
    for each in (pause, archive):
        argv = ["ctr", f"--address={socket}", "--namespace=k8s.io", "images", "import", str(each)]
        subprocess.run(argv, check=True, capture_output=True)


def _pause_image(directory: Path) -> Any:
    program = directory / "pause"
    subprocess.run(["gcc", "-Os", "-static", "-s", "-o", str(program), str(_PAUSE_SOURCE)], check=True)
    layer = tar(entry("pause", data=program.read_bytes(), mode=0o755))
    return image(layer, Entrypoint=["/pause"], Cmd=None)

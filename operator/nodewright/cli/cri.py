"""`nodewright cri`: the agent's runtime half behind a CRI v1 socket."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodewright.cli.component import Component, Option
from nodewright.cli.output import PRECONDITION, USAGE, CliError


@dataclass(frozen=True)
class Options:
    """Answer CRI (runtime.v1) on a socket, for crictl, critest or a kubelet, until stopped.

    Stopping it leaves its containers running; the next one goes on with them.
    """

    socket: Annotated[
        str, Option("--socket", metavar="ENDPOINT", help="Where to answer, such as unix:///run/x.sock.")
    ] = "unix:///run/nodewright/cri.sock"
    root: Annotated[Path, Option("--root", metavar="DIR", help="Records and writable layers.")] = Path(
        "/var/lib/nodewright/cri"
    )
    run_dir: Annotated[Path, Option("--run-dir", metavar="DIR", help="What a reboot may lose.")] = Path(
        "/run/nodewright/cri"
    )
    image_root: Annotated[Path, Option("--image-root", metavar="DIR", help="The image store.")] = Path(
        "/var/lib/nodewright/images"
    )
    cgroup_root: Annotated[
        str, Option("--cgroup-root", metavar="PATH", help="The cgroup of what is not given one.")
    ] = "/nodewright-cri"
    pod_cidr: Annotated[
        str,
        Option("--pod-cidr", metavar="CIDR", help="Addresses of pods (default: UpdateRuntimeConfig's)."),
    ] = ""
    runc: Annotated[str, Option("--runc", metavar="PROGRAM", help="The OCI runtime.")] = "runc"
    conmon: Annotated[str, Option("--conmon", metavar="PROGRAM", help="The container monitor.")] = "conmon"
    handler: Annotated[
        list[str] | None,
        Option("--runtime-handler", metavar="NAME=PROGRAM", help="Another OCI runtime, by handler; repeatable."),
    ] = None
    verbose: Annotated[int, Option("-v", "--verbose", count=True, help="Log more.")] = 0


def run(options: Options) -> None:
    """Run it; returns when it is told to end. Raises ``CliError``."""
    import asyncio
    import os

    from nodewright.kube import logs

    try:
        from nodewright_agent.cri.server import serve
        from nodewright_agent.cri.settings import Settings, socket_path
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise CliError(f"{error.name} is not installed", "install nodewright[cri]", PRECONDITION) from error
    from nodewright_agent.runtime.errors import RuntimeUnavailable

    if os.geteuid() != 0:
        raise CliError("the runtime makes namespaces, mounts and cgroups", "run it as root", PRECONDITION)
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)
    logging.getLogger("grpc").setLevel(logging.WARNING)
    try:
        settings = Settings(
            socket=socket_path(options.socket),
            root=options.root.absolute(),
            run_dir=options.run_dir.absolute(),
            image_root=options.image_root.absolute(),
            cgroup_root=options.cgroup_root,
            pod_cidr=options.pod_cidr,
            runc=options.runc,
            conmon=options.conmon,
            handlers=_handlers(options.handler or []),
        )
    except ValueError as error:
        raise CliError(str(error), "`nodewright cri --help` shows the forms", USAGE) from error
    try:
        asyncio.run(serve(settings))
    except RuntimeUnavailable as error:
        raise CliError(str(error), "`nodewright doctor` tells what this host lacks", PRECONDITION) from error


def _handlers(given: list[str]) -> dict[str, str]:
    found = dict(item.partition("=")[::2] for item in given)
    if bad := [item for item in given if not all(item.partition("=")[::2])]:
        raise ValueError(f"--runtime-handler {bad[0]!r} is not NAME=PROGRAM")
    return found


COMPONENT = Component(Options, run)

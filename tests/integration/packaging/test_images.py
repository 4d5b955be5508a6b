"""The images as they come out of tools/images/build.sh: what they hold, and that it runs."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import image_contents

pytestmark = pytest.mark.timeout(600)

PROJECT = Path(__file__).parents[3]
LIMIT = 120_000_000  # bytes unpacked, of either image
CONFINED = ("--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges")
# Rights over the container's own network namespace, which holds no more than a loopback; iptables locks a file in /run.
NETWORK = ("--user=0", "--tmpfs=/run", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW")

Docker = Callable[..., subprocess.CompletedProcess[str]]
BOTH = pytest.mark.parametrize("image", ["operator", "agent"])


@BOTH
def test_holds_what_it_needs_and_nothing_else(image: str, contents: dict[str, dict[str, image_contents.Entry]]) -> None:
    assert list(image_contents.objections(image, contents[image])) == []


@BOTH
def test_size(image: str, images: dict[str, str], inspect: Callable[[str], Any]) -> None:
    assert inspect(images[image])["Size"] < LIMIT


@BOTH
def test_labels_and_start(image: str, images: dict[str, str], inspect: Callable[[str], Any]) -> None:
    config = inspect(images[image])["Config"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == project["version"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert config["Entrypoint"] == ["nodewright"]
    assert config["User"] == ("65532:65532" if image == "operator" else "")
    assert config["StopSignal"] == "SIGTERM"
    assert not [name for name in config["Env"] if re.search("TOKEN|PASSWORD|SECRET|PROXY", name, re.IGNORECASE)]


@pytest.mark.parametrize(
    ("image", "verb"),
    [(image, verb) for image in ("operator", "agent") for verb in ("--version", "--help")]
    + [("operator", "operator"), ("operator", "scheduler"), ("agent", "agent"), ("agent", "proxy")],
)
def test_starts_without_any_right(image: str, verb: str, images: dict[str, str], docker: Docker) -> None:
    """Read-only root, no capability, no network, and a user that is not in /etc/passwd."""
    arguments = [verb] if verb.startswith("-") else [verb, "--help"]
    done = docker("run", *CONFINED, "--user=70000:70000", images[image], *arguments)
    assert "nodewright" in done.stdout.lower()
    assert done.stderr == ""


@pytest.mark.parametrize(("image", "verb"), [("operator", "agent"), ("agent", "operator"), ("agent", "scheduler")])
def test_a_verb_of_the_other_half_says_so(image: str, verb: str, images: dict[str, str], docker: Docker) -> None:
    done = docker("run", *CONFINED, "--user=0", images[image], verb, check=False)
    assert done.returncode == 3
    assert f"this image holds only the {image}'s half of Nodewright" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_program_of_the_agent_runs(images: dict[str, str], docker: Docker) -> None:
    wanted = tomllib.loads((PROJECT / "tools/images/agent.toml").read_text())["programs"]
    programs = [name for name in wanted if name != "sh"]  # it knows no --version, and is what runs the others
    script = 'for each in "$@"; do $each --version >/dev/null || echo "$each"; done'
    # ipset asks the kernel, which answers in a network namespace of one's own
    done = docker("run", *CONFINED, *NETWORK, "--entrypoint=sh", images["agent"], "-c", script, "sh", *programs)
    assert (done.stdout, done.stderr) == ("", "")


# The extensions of the IPVS backend's rules (ipvs/companion.py), in a form that needs no set in the kernel.
RULES = """*nat
:TRIAL - [0:0]
-A TRIAL -m addrtype --src-type LOCAL -j MARK --or-mark 0x4000
-A TRIAL -m mark ! --mark 0x4000/0x4000 -j RETURN
-A TRIAL -j MARK --xor-mark 0x4000
-A TRIAL -j MASQUERADE --random-fully
COMMIT
*filter
:TRIAL - [0:0]
-A TRIAL -m conntrack --ctstate NEW -j DROP
COMMIT
"""


@pytest.mark.parametrize("variant", ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"])
def test_iptables_has_the_extensions_that_the_ipvs_backend_uses(
    variant: str, images: dict[str, str], docker: Docker
) -> None:
    script = f"{variant} -m set -h >/dev/null && {variant}-restore --test"
    run = ("run", *CONFINED, *NETWORK, "--interactive", "--entrypoint=sh", images["agent"], "-c", script)
    docker(*run, input=RULES)
    assert "--nosuch" in docker(*run, input=RULES.replace("--ctstate", "--nosuch"), check=False).stderr


@pytest.mark.parametrize(
    ("program", "argument"), [("runc", "features"), ("runc", "--version"), ("conmon", "--version")]
)
def test_host_tools_run_on_a_host_that_has_nothing(
    program: str, argument: str, images: dict[str, str], docker: Docker, tmp_path: Path
) -> None:
    """In a container whose root holds PREFIX and nothing else: no loader, no library, no shell of the host."""
    source = docker("create", images["agent"]).stdout.strip()
    folder = tmp_path / "host"
    docker("cp", f"{source}:/opt/nodewright/host", str(folder))
    docker("rm", source)
    prefix = (folder / "PREFIX").read_text().strip()
    assert re.fullmatch(r"/var/lib/nodewright/host/[0-9a-f]{16}", prefix)
    archive = tmp_path / "bare.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, prefix.lstrip("/"))
    bare = docker("import", str(archive)).stdout.strip()
    try:
        done = docker("run", "--rm", "--network=none", bare, f"{prefix}/bin/{program}", argument)
    finally:
        docker("image", "rm", "--force", bare)
    assert ("ociVersionMin" if argument == "features" else f"{program} version") in done.stdout


def test_two_builds_are_the_same_to_the_byte(
    images: dict[str, str], build: Callable[..., None], inspect: Callable[[str], Any]
) -> None:
    build("2", NO_CACHE="1")
    for name in images.values():
        again = name.removesuffix(":1") + ":2"
        assert inspect(again)["RootFS"]["Layers"] == inspect(name)["RootFS"]["Layers"]

"""Rules that the Dockerfiles, package lists and lock files keep, read without Docker."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
FILES = {"operator": PROJECT / "operator/Dockerfile", "agent": PROJECT / "nodeagent/Dockerfile"}
BOTH = pytest.mark.parametrize("image", list(FILES))


def instructions(image: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", FILES[image].read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def stages(image: str) -> list[list[tuple[str, str]]]:
    result: list[list[tuple[str, str]]] = []
    for word, rest in instructions(image):
        if word == "FROM":
            result.append([])
        if result:
            result[-1].append((word, rest))
    return result


def packages(image: str) -> list[str]:
    return (PROJECT / f"tools/images/packages.{image}").read_text().split()


def settings(image: str) -> dict[str, list[str]]:
    return tomllib.loads((PROJECT / f"tools/images/{image}.toml").read_text())


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package."""
    blocks = re.split(r"\n(?=[a-z0-9])", (PROJECT / f"requirements/{name}.txt").read_text().strip())
    pins = [(re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", block), block.count("--hash=sha256:")) for block in blocks]
    return {match[1]: (match[2], hashes) for match, hashes in pins if match}


@BOTH
def test_base_is_an_argument_with_a_fixed_release(image: str) -> None:
    first = instructions(image)[0]
    assert first[0] == "ARG"
    name, _, tag = first[1].removeprefix("BASE_IMAGE=").partition(":")
    assert name
    assert tag not in ("", "latest")
    assert [rest for word, rest in instructions(image) if word == "FROM"] == ["${BASE_IMAGE} AS builder", "scratch"]


@BOTH
def test_last_stage_only_copies(image: str) -> None:
    last = stages(image)[-1]
    assert not [word for word, _ in last if word in ("RUN", "ADD", "ARG")]
    assert [rest for word, rest in last if word == "COPY"] == ["--from=builder /rootfs/ /"]
    words = dict(last)
    assert words["ENTRYPOINT"] == '["nodewright"]'
    assert words["STOPSIGNAL"] == "SIGTERM"


def test_operator_is_an_ordinary_user() -> None:
    assert dict(stages("operator")[-1])["USER"] == "65532:65532"
    assert "65532" in (PROJECT / "tools/images/collect.py").read_text()


@BOTH
def test_nothing_compiles(image: str) -> None:
    """Wheels only: neither the builder nor the image has a compiler or headers."""
    wrong = re.compile(r"(gcc|g\+\+|clang|cargo|rustc|golang|make|build-essential|.*-dev|python3-pip|git)$")
    assert not [name for name in packages(image) if wrong.match(name)]
    assert "--only-binary=:all:" in (PROJECT / "tools/images/build.sh").read_text()
    assert '"--require-hashes"' in (PROJECT / "tools/images/wheels.py").read_text()


@BOTH
def test_no_secret_can_come_in(image: str) -> None:
    text = FILES[image].read_text()
    assert not re.search(r"token|password|secret|--mount=type=secret|https?://[^/\s]*@", text, re.IGNORECASE)


@BOTH
def test_lock_is_hashed_and_has_the_tested_versions(image: str) -> None:
    tested, pins = locked("dev"), locked(image)
    assert len(pins) > 15
    assert {name for name, (version, _) in pins.items() if tested[name][0] != version} == set()
    assert {name for name, (_, hashes) in pins.items() if not hashes} == set()


@BOTH
def test_lock_has_what_pyproject_asks_for(image: str) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[image], *extras["cli"]]
    assert {re.split("[<>=]", name)[0] for name in wanted} <= set(locked(image))


@pytest.mark.parametrize(
    ("image", "foreign"), [("operator", {"grpcio"}), ("agent", {"kopf", "numpy"}), ("agent", {"kubernetes"})]
)
def test_lock_has_nothing_of_the_other_half(image: str, foreign: set[str]) -> None:
    assert not foreign & set(locked(image))


@BOTH
def test_the_other_half_is_left_out(image: str) -> None:
    other = {"operator": {"nodewright_agent"}, "agent": {"nodewright/controllers", "nodewright/scheduler"}}[image]
    assert other <= set(settings(image)["leave_out"])

"""What OCI runtimes say of themselves, what the node tells of it, and what containers get."""

import sys
from pathlib import Path

import pytest

from nodewright_agent.node.status import _handler
from nodewright_agent.runtime import bundle, features
from nodewright_agent.runtime.errors import CreateContainerError
from nodewright_agent.runtime.features import RuntimeFeatures
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.probe import RuntimeInfo
from nodewright_agent.runtime.spec import ContainerSpec, IdRange, Mount

BOTH = RuntimeFeatures(recursive_read_only=True, user_namespaces=True)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b'{"mountOptions": ["ro", "rro"], "linux": {"namespaces": ["mount", "user"]}, "x": 1}', BOTH),
        (b'{"mountOptions": ["ro"], "linux": {"namespaces": ["user"]}}', RuntimeFeatures(user_namespaces=True)),
        (b"{}", RuntimeFeatures()),
        (b"unknown command", RuntimeFeatures()),
        (b'{"mountOptions": "rro"}', RuntimeFeatures()),
        (b"", RuntimeFeatures()),
    ],
)
def test_answers(said: bytes, found: RuntimeFeatures):
    assert features.parse(said) == found


async def test_programs_that_do_not_answer(tmp_path: Path):
    program = tmp_path / "runtime"
    assert await features.ask(str(program), HostSpace()) == RuntimeFeatures()
    program.write_text(f'#!{sys.executable}\nprint(\'{{"mountOptions": ["rro"]}}\')\nraise SystemExit(1)\n')
    program.chmod(0o755)
    assert await features.ask(str(program), HostSpace()) == RuntimeFeatures()
    program.write_text(program.read_text().replace("Exit(1)", "Exit(0)"))
    assert await features.ask(str(program), HostSpace()) == RuntimeFeatures(recursive_read_only=True)


@pytest.mark.parametrize("node", [BOTH, RuntimeFeatures(), RuntimeFeatures(user_namespaces=True)])
@pytest.mark.parametrize("own", [BOTH, RuntimeFeatures(), RuntimeFeatures(recursive_read_only=True)])
def test_a_handler_can_what_node_and_program_can(node: RuntimeFeatures, own: RuntimeFeatures):
    told = _handler("other", node, own).features
    assert told.user_namespaces is (node.user_namespaces and own.user_namespaces)
    assert told.recursive_read_only_mounts is (node.recursive_read_only and own.recursive_read_only)


def spec(**fields) -> ContainerSpec:
    base = {"id": "c", "pod_uid": "u", "pod_name": "p", "pod_namespace": "n", "name": "a", "lowers": ["/l"]}
    return ContainerSpec(**{**base, "argv": ["x"], "log_path": "/log", "cgroup_parent": "/p", **fields})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user_ns": "/u", "ids": IdRange(65536, 65536)}, "RuntimeClass handler's /o does not support user namespaces"),
        ({"mounts": [Mount("/s", "/v", "bind", ["ro", "rro"])]}, 'volume at "/v" requested recursive read-only mode'),
        ({"mounts": [Mount("/s", "/v", "bind", ["ro"])]}, ""),
    ],
)
def test_what_a_runtime_cannot_is_refused(fields, told: str):
    values = {"runc": "/r", "runc_version": "1", "conmon": "/c", "conmon_version": "1", "cgroup_version": 2}
    info = RuntimeInfo(**values, capabilities=(), oom_score_floor=0, handlers={"/good": BOTH, "/o": RuntimeFeatures()})
    for program in ("", "/good"):
        bundle._check_handler(spec(runtime=program, **fields), info)
    for program in ("/o", "/unknown"):
        if told:
            with pytest.raises(CreateContainerError, match=told.replace("/o", program)):
                bundle._check_handler(spec(runtime=program, **fields), info)
        else:
            bundle._check_handler(spec(runtime=program, **fields), info)

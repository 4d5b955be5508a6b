"""Which way containers are run, and what is said where that cannot be."""

import subprocess
import sys

import pytest

from nodewright_agent import assembly
from nodewright_agent.config import AgentConfig, ConfigError, load
from nodewright_agent.configcheck import check


class Context:
    config = AgentConfig(container_runtime_endpoint="unix:///run/x.sock")


async def test_without_grpc_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nodewright_agent.remote.assembly", None)
    with pytest.raises(ConfigError, match=r"pip install 'nodewright\[cri\]'"):
        await assembly._engine(Context())


def test_the_built_in_way_knows_nothing_of_it():
    program = (
        "import sys, nodewright_agent.main, nodewright_agent.builtin;"
        "print([name for name in sys.modules if name.startswith(('grpc', 'google', 'nodewright_agent.remote',"
        "'nodewright_agent.cri'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_that_go_with_it(tmp_path):
    config = load(None, node_name="n", container_runtime_endpoint="unix:///run/x.sock", standalone=True,
                  static_pod_path=str(tmp_path))  # fmt: skip
    assert check(config) == []  # no pod_cidr: the runtime has its own


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"container_runtime_endpoint": "/run/x.sock"}, "container_runtime_endpoint: '/run/x.sock' is no unix:///PATH"),
        ({"image_service_endpoint": "unix:///run/x.sock"}, "goes with container_runtime_endpoint only"),
        ({"container_runtime_endpoint": "unix:///x", "runtime_handlers": {"a": "/b"}}, "runtime_handlers: with"),
        ({"container_runtime_endpoint": "unix:///x", "image_sources": ["containerd"]}, "image_sources: with"),
        ({"container_runtime_endpoint": "unix:///x", "pod_mtu": 1400}, "pod_mtu: with"),
    ],
)
def test_settings_that_do_not(settings, text):
    with pytest.raises(ConfigError, match=text):
        load(None, node_name="n", **settings)

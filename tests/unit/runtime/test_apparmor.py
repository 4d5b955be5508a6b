"""AppArmor: what the kernel's files say, and which profile a container gets."""

from pathlib import Path

import pytest

from nodewright_agent.pods import security
from nodewright_agent.runtime import apparmor
from unit.pods.pod_doubles import make_pod


def test_host_files(tmp_path: Path):
    assert not apparmor.enabled(tmp_path)
    parameter = tmp_path / "module/apparmor/parameters/enabled"
    parameter.parent.mkdir(parents=True)
    parameter.write_text("Y\n")
    assert not apparmor.enabled(tmp_path)
    profiles = tmp_path / "kernel/security/apparmor/profiles"
    profiles.parent.mkdir(parents=True)
    profiles.write_text("nodewright-default (enforce)\n/usr/bin/man (x) (complain)\n")
    assert apparmor.enabled(tmp_path)
    assert apparmor.loaded(tmp_path) == {"nodewright-default", "/usr/bin/man (x)"}
    parameter.write_text("N\n")
    assert not apparmor.enabled(tmp_path)


LOCAL = {"type": "Localhost", "localhostProfile": "mine"}


@pytest.mark.parametrize(
    ("container", "pod", "profile"),
    [
        (None, None, "nodewright-default"),
        ({"type": "RuntimeDefault"}, None, "nodewright-default"),
        (None, LOCAL, "mine"),
        ({"type": "Unconfined"}, LOCAL, ""),
        (LOCAL, {"type": "Unconfined"}, "mine"),
    ],
)
def test_profile_of_a_container(container, pod, profile: str):
    for privileged in (False, True):
        own = {"appArmorProfile": container, "privileged": privileged}
        made = make_pod({"name": "a", "securityContext": own}, securityContext={"appArmorProfile": pod})
        expected = "" if privileged and profile == "nodewright-default" else profile
        assert security.app_armor_profile(made, made.spec.containers[0], True) == expected


def test_without_apparmor_only_who_asks_is_refused():
    text = "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    asks = {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}
    for pod in (
        make_pod({"name": "a", **asks}),
        make_pod(**asks),
        make_pod(initContainers=[{"name": "i", **asks}]),
    ):
        assert security.app_armor_refusal(pod, False) == ("AppArmor", text)
        assert security.app_armor_refusal(pod, True) is None
    quiet = make_pod({"name": "a", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}})
    assert security.app_armor_refusal(quiet, False) is None
    assert security.app_armor_profile(quiet, quiet.spec.containers[0], False) == ""

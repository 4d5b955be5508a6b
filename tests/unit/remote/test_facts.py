"""What a runtime says of itself."""

import json

import pytest

from nodewright_agent.cri import wire
from nodewright_agent.remote import facts


def about(name="containerd", version="v1.7.2", **status):
    answer = wire.StatusResponse(**status)
    return facts.of_answers(wire.VersionResponse(runtime_name=name, runtime_version=version), answer)


def test_an_old_containerd():
    found = about(info={"config": json.dumps({"sandboxImage": "pause:3"})})
    assert (found.described, found.scheme, found.sandbox_image) == ("containerd://v1.7.2", "containerd://", "pause:3")
    assert found.handlers == {}
    assert not found.user_namespaces("")
    assert found.no_image_volumes == "image volumes: containerd v1.7.2 does not mount images"


def test_one_that_tells_its_handlers():
    features = wire.RuntimeHandlerFeatures(user_namespaces=True)
    handlers = [wire.RuntimeHandler(name=""), wire.RuntimeHandler(name="k", features=features)]
    found = about(version="2.1.0", runtime_handlers=handlers)
    assert found.user_namespaces("k")
    assert not found.user_namespaces("")
    assert not found.user_namespaces("other")
    assert found.no_image_volumes == ""


@pytest.mark.parametrize(("name", "version"), [("strange", "0.1"), ("containerd", "next"), ("nodewright", "0.1.0")])
def test_who_is_not_known_is_taken_at_its_word(name, version):
    assert about(name, version).no_image_volumes == ""


@pytest.mark.parametrize("config", ["", "{", "[]", '{"sandboxImage": 1}'])
def test_configs_that_tell_nothing(config):
    assert about(info={"config": config}).sandbox_image == ""


def test_conditions_in_kubelets_words():
    status = wire.StatusResponse()
    status.status.conditions.add(type="RuntimeReady", status=True)
    status.status.conditions.add(
        type="NetworkReady", reason="NetworkPluginNotReady",
        message="Network plugin returns error: cni plugin not initialized",
    )  # fmt: skip
    assert facts.problem(status, facts.RUNTIME_READY) == ""
    assert facts.problem(status, facts.NETWORK_READY) == (
        "NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin returns error: cni plugin not initialized"
    )
    assert facts.problem(wire.StatusResponse(), "RuntimeReady") == "RuntimeReady is not told"

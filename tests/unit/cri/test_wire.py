"""The protobuf classes, against what the wire format says and against protobuf's own well-known shapes."""

import pytest

from nodewright_agent.cri import wire
from nodewright_agent.cri.messages import MESSAGES


def test_bytes_on_the_wire():
    meta = wire.PodSandboxMetadata(name="a", uid="b", namespace="c", attempt=3)
    # field << 3 | type, length, text; the number as a varint
    assert meta.SerializeToString() == b"\x0a\x01a\x12\x01b\x1a\x01c\x20\x03"


def test_a_field_number_above_15_takes_two_bytes():
    assert wire.ImageSpec(user_specified_image="a").SerializeToString() == b"\x92\x01\x01a"


def test_maps_and_nested_messages_come_back():
    config = wire.PodSandboxConfig(labels={"a": "b"}, metadata=wire.PodSandboxMetadata(name="n"))
    config.linux.security_context.namespace_options.pid = wire.NODE
    assert wire.PodSandboxConfig.FromString(config.SerializeToString()) == config
    assert dict(config.labels) == {"a": "b"}


def test_what_is_not_set_is_told_apart():
    config = wire.ContainerConfig()
    assert not config.linux.security_context.HasField("run_as_user")
    config.linux.security_context.run_as_user.value = 0
    assert config.linux.security_context.HasField("run_as_user")


def test_an_unknown_field_is_skipped():
    windows = b"\x4a\x02\x0a\x00"  # PodSandboxConfig.windows = 9
    config = wire.PodSandboxConfig.FromString(b"\x12\x01h" + windows)
    assert config.hostname == "h"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGABRT", 1),
        ("SIGKILL", 13),
        ("SIGTERM", 23),
        ("SIGUSR1", 29),
        ("SIGXFSZ", 34),
        ("SIGRTMIN", 35),
        ("SIGRTMINPLUS15", 50),
        ("SIGRTMAXMINUS14", 51),
        ("SIGRTMAX", 65),
        ("CONTAINER_UNKNOWN", 3),
        ("CGROUPFS", 1),
    ],
)
def test_numbers_of_enums(name, number):
    assert getattr(wire, name) == number


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", wire.SIGTERM), ("SIGRTMIN+3", wire.SIGRTMINPLUS3), ("SIGRTMAX-2", wire.SIGRTMAXMINUS2)],
)
def test_names_of_signals_there_and_back(name, number):
    assert wire.signal_number(name) == wire.signal_number(name.removeprefix("SIG").lower()) == number
    assert wire.signal_name(number) == name


@pytest.mark.parametrize("name", ["", "SIGNONE", "9"])
def test_names_that_are_no_signals(name):
    assert wire.signal_number(name) == 0


@pytest.mark.parametrize("number", [wire.RUNTIME_DEFAULT, -1, 66])
def test_numbers_that_are_no_signals(number):
    assert wire.signal_name(number) == ""


def test_no_message_has_a_number_or_a_name_twice():
    for line in MESSAGES.replace("\\\n", "").splitlines():
        fields = [word.partition("=") for word in line.split()[1:]]
        numbers = [rest.partition(":")[0] for _, _, rest in fields]
        assert len(set(numbers)) == len(numbers), line
        assert len({name for name, _, _ in fields}) == len(fields), line


def test_a_name_that_cri_does_not_have():
    with pytest.raises(AttributeError, match="CRI has no Nonsense"):
        _ = wire.Nonsense

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.api.volumes import ResourceFieldSelector
from nodewright.kube.objects import ConfigMap, ObjectMeta, Pod, Secret, Service
from nodewright_agent.pods.env import (
    CreateContainerConfigError,
    EnvContext,
    EnvSources,
    container_env,
    expand,
    merge,
    references,
    service_env,
)
from nodewright_agent.pods.volumes.fields import FieldError, format_map, go_quote, metadata_field, resource_field

# The table of upstream's third_party/forked/golang/expansion/expand_test.go, with its variables.
VALUES = {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)$(VAR_B)$(VAR_A)", "ABA"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("%%$(VAR_REF)--$(VAR_REF)%%", "%%$(VAR_A)--$(VAR_A)%%"),
        ("foo$(VAR_EMPTY)bar", "foobar"),
        ("foo\\\\$(VAR_A)", "foo\\\\A"),
        ("foo$$bar", "foo$bar"),
        ("foo$$$(VAR_A)", "foo$A"),
        ("foo$$(VAR_A)", "foo$(VAR_A)"),
        ("foo$$$$(VAR_A)", "foo$$(VAR_A)"),
        ("$VAR_A", "$VAR_A"),
        ("$(VAR_A", "$(VAR_A"),
        ("$()", "$()"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("--$$VAR_A$(FOO", "--$VAR_A$(FOO"),
        ("$", "$"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("$?-\\$(VAR_A)", "$?-\\A"),
        ("$((VAR_A))", "$((VAR_A))"),
        ("$é$(VAR_A)", "$éA"),
        ("", ""),
    ],
)
def test_expansion(text, result):
    assert expand(text, VALUES.get) == result


@given(st.text("$()AB", max_size=30))
def test_expansion_of_anything_ends_and_keeps_text_without_dollars(text):
    assert expand(text.replace("$", ""), VALUES.get) == text.replace("$", "")
    expand(text, VALUES.get)


def pod(**more):
    document = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "labels": {"a": "1", "b/c": "x"},
                     "annotations": {"k": 'v"\n'}},
        "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
    }  # fmt: skip
    document["spec"]["containers"][0] |= more
    return msgspec.convert(document, Pod)


def meta(name):
    return ObjectMeta(name=name, namespace="ns")


SOURCES = EnvSources(
    {"cm": ConfigMap(metadata=meta("cm"), data={"k": "v", "a.b": "odd"})},
    {"s": Secret(metadata=meta("s"), data={"pw": b"\xff\xfe", "t": b"text"})},
)
CONTEXT = EnvContext(("10.0.0.5", "fd00::5"), ("192.168.0.1",), "host-name", {"cpu": "2", "memory": "1Gi"})


def services(*items):
    return [
        msgspec.convert({"metadata": {"name": n, "namespace": ns}, "spec": {"clusterIP": ip, "ports": ports}}, Service)
        for n, ns, ip, ports in items
    ]


def env(given_services=(), **more):
    made = pod(**more)
    return dict(container_env(made, made.spec.containers[0], SOURCES, given_services, CONTEXT))


def test_values_see_what_was_declared_before_and_services():
    web = services(("web", "ns", "10.96.0.7", [{"port": 80}]))
    found = env(web, env=[
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$(WEB_SERVICE_HOST)"},
        {"name": "C", "value": "3"}, {"name": "A", "value": "again $(A)"}, {"name": "E", "value": ""},
    ])  # fmt: skip
    assert found["B"] == "1-$(C)-10.96.0.7"
    assert found["A"] == "again 1"
    assert found["E"] == ""
    assert found["HOSTNAME"] == "host-name"


def test_env_from_and_precedence():
    found = env(
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}},
                 {"configMapRef": {"name": "none", "optional": True}},
                 {"secretRef": {"name": "none", "optional": True}}],
        env=[{"name": "P_k", "value": "own"}, {"name": "HOSTNAME", "value": "mine"}],
    )  # fmt: skip
    assert found["P_k"] == "own"
    assert found["P_a.b"] == "odd"
    assert found["HOSTNAME"] == "mine"
    assert found["pw"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['b/c']", "x"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['k']", 'v"\n'),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
        ("status.hostIP", "192.168.0.1"),
        ("status.hostIPs", "192.168.0.1"),
    ],
)
def test_field_references(path, value):
    assert env(env=[{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}])["F"] == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"configMapKeyRef": {"name": "cm", "key": "k"}}, "v"),
        ({"secretKeyRef": {"name": "s", "key": "t"}}, "text"),
        ({"configMapKeyRef": {"name": "cm", "key": "none", "optional": True}}, None),
        ({"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}, None),
        ({"secretKeyRef": {"name": "none", "key": "k", "optional": True}}, None),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "2"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}, "1250"),
        ({"resourceFieldRef": {"resource": "requests.cpu", "divisor": "0"}}, "1"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "64"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1G"}}, "1"),
        ({"resourceFieldRef": {"resource": "requests.memory"}}, "0"),
        ({"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}, "0"),
    ],
)
def test_references(source, value):
    assert env(env=[{"name": "F", "valueFrom": source}]).get("F") == value


def test_limits_that_are_not_set_are_those_of_the_node():
    made = pod(resources={})
    selector = ResourceFieldSelector(resource="limits.memory", divisor="1Mi")
    assert resource_field(made, selector, made.spec.containers[0], {"memory": "1Gi"}) == "1024"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        ({"env": [{"name": "F", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]},
         'configmap "none" not found'),
        ({"env": [{"name": "F", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}}]},
         "couldn't find key x in ConfigMap ns/cm"),
        ({"env": [{"name": "F", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]},
         "couldn't find key x in Secret ns/s"),
        ({"env": [{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "spec.secret"}}}]},
         "unsupported fieldPath: spec.secret"),
        ({"env": [{"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['x']"}}}]},
         'fieldPath "metadata.name[\'x\']" does not support subscript'),
        ({"env": [{"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
         "unsupported container resource : limits.gpu"),
        ({"env": [{"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "x"}}}]},
         "container x not found"),
        ({"env": [{"name": "F", "valueFrom": {}}]}, "not known"),
        ({"env": [{"name": "F=", "value": "x"}]}, "impossible name"),
        ({"env": [{"name": "F", "value": "a\0b"}]}, "NUL"),
    ],
)  # fmt: skip
def test_errors_are_upstreams(more, said):
    with pytest.raises(CreateContainerConfigError) as caught:
        env(**more)
    assert said in str(caught.value)


def test_what_an_environment_needs():
    made = pod(
        envFrom=[{"configMapRef": {"name": "a", "optional": True}}, {"secretRef": {"name": "b"}}],
        env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}},
             {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "c", "key": "k", "optional": True}}}],
    )  # fmt: skip
    assert references(made.spec.containers[0]) == ({"a": False}, {"b": False, "c": True})


KUBERNETES = ("kubernetes", "default", "10.96.0.1", [{"port": 443, "name": "https"}])


def test_service_variables():
    given_services = services(
        KUBERNETES,
        ("my-db", "ns", "10.96.0.9", [{"port": 53, "name": "dns-udp", "protocol": "UDP"}, {"port": 9, "name": "m"}]),
        ("headless", "ns", "None", [{"port": 1}]),
        ("other", "elsewhere", "10.96.0.8", [{"port": 1}]),
    )
    found = service_env(given_services, "ns", links=True)
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT"] == found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["KUBERNETES_PORT"] == "tcp://10.96.0.1:443"
    assert found["MY_DB_SERVICE_PORT_DNS_UDP"] == "53"
    assert found["MY_DB_PORT_53_UDP"] == found["MY_DB_PORT"] == "udp://10.96.0.9:53"
    assert found["MY_DB_PORT_53_UDP_PROTO"] == "udp"
    assert found["MY_DB_PORT_9_TCP_ADDR"] == "10.96.0.9"
    assert not [name for name in found if name.startswith(("HEADLESS", "OTHER"))]
    assert set(service_env(given_services, "ns", links=False)) == {n for n in found if n.startswith("KUBERNETES")}
    v6 = service_env(services(("six", "ns", "fd00::1", [{"port": 1}])), "ns", links=True)
    assert v6["SIX_PORT"] == "tcp://[fd00::1]:1"


def test_merge_puts_the_containers_above_the_images():
    assert merge(["PATH=/bin", "A=1", "B=x=y"], [("A", "2"), ("C", "")]) == ["PATH=/bin", "A=2", "B=x=y", "C="]


def test_maps_are_written_as_upstream_does():
    assert format_map({"b": 'q"', "a": "é\n\x01"}) == 'a="é\\n\\x01"\nb="q\\""'
    assert go_quote("\u200b\U000e0001") == '"\\u200b\\U000e0001"'
    assert metadata_field(pod(), "metadata.labels") == 'a="1"\nb/c="x"'
    with pytest.raises(FieldError):
        metadata_field(pod(), "metadata.finalizers")

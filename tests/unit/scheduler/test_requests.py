"""How much a Pod asks for, by upstream's rules."""

import msgspec
import pytest

from nodewright.scheduler.objects import Pod
from nodewright.scheduler.pods import PodFactory, PodPart, host_ports
from nodewright.scheduler.requests import DEFAULT_MEMORY, nano
from support.scheduler_builders import make_pod

MI = 1024 * 1024


def container(cpu=None, memory=None, **more):
    requests = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    return {"name": more.pop("name", "c"), "resources": {"requests": requests}, **more}


def template(status=None, **spec):
    pod = msgspec.convert({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": status or {}}, Pod)
    return PodFactory().info(pod).template


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [container()]}, {}, id="best effort"),
        pytest.param({"containers": [container("0")]}, {}, id="zero requests do not count"),
        pytest.param({"containers": [container("100m"), container("1")]}, {"cpu": 1100}, id="containers add up"),
        pytest.param(
            {"containers": [container("100u"), container("100u")]}, {"cpu": 1}, id="rounded up once, after the sum"
        ),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("3"), container("2")]},
            {"cpu": 3000},
            id="the largest init container",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("500m", restartPolicy="Always"), container("3")],
            },
            {"cpu": 3500},
            id="an init container runs beside the sidecars before it",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("1200m"), container("500m", restartPolicy="Always")],
            },
            {"cpu": 1500},
            id="but not beside those after it",
        ),
        pytest.param(
            {"containers": [container("1", "1Gi")], "overhead": {"cpu": "250m", "memory": "64Mi"}},
            {"cpu": 1250, "memory": (1024 + 64) * MI},
            id="overhead",
        ),
        pytest.param(
            {"containers": [container("1", "1Gi")], "resources": {"requests": {"cpu": "4"}}},
            {"cpu": 4000, "memory": 1024 * MI},
            id="pod-level requests take the place of the sum",
        ),
        pytest.param(
            {
                "containers": [
                    {"name": "c", "resources": {"requests": {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}}}
                ]
            },
            {"example.com/gpu": 2, "hugepages-2Mi": 4 * MI},
            id="other resources in whole units",
        ),
    ],
)
def test_requests(spec, expected):
    assert template(**spec).requests == expected


def test_a_resize_under_way_counts_with_the_largest_amount():
    held = {"name": "c", "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"cpu": "1500m"}}}
    found = template({"containerStatuses": [held]}, containers=[container("1", "1Gi")])
    assert found.requests == {"cpu": 2000, "memory": 1024 * MI}


@pytest.mark.parametrize(
    ("spec", "cpu", "memory"),
    [
        pytest.param({"containers": [container()]}, 100, DEFAULT_MEMORY, id="nothing stated"),
        pytest.param({"containers": [container("0", "0")]}, 0, 0, id="a stated zero stays"),
        pytest.param(
            {"containers": [container("1"), container(None, "1Gi")]}, 1100, DEFAULT_MEMORY + 1024 * MI, id="each"
        ),
        pytest.param(
            {"containers": [container("1"), container()], "resources": {"requests": {"memory": "1Gi"}}},
            1000,
            1024 * MI,
            id="with pod-level requests only what is missing altogether",
        ),
    ],
)
def test_amounts_counted_for_scoring(spec, cpu, memory):
    found = template(**spec)
    assert (found.nonzero_cpu, found.nonzero_memory) == (cpu, memory)


def test_quantities_are_exact():
    assert nano("1") == 10**9
    assert nano("1n") == 1
    assert nano("0.1n") == 1  # rounded away from zero, as the API does
    assert nano("1Ei") == 2**60 * 10**9
    with pytest.raises(ValueError, match="three"):
        nano("three")


def test_pods_of_one_template_share_its_facts():
    factory = PodFactory()
    one, two = (factory.info(make_pod(name, {"cpu": "1"}, node=node)) for name, node in (("a", ""), ("b", "n1")))
    other = factory.info(make_pod("c", {"cpu": "2"}))
    assert one.template is two.template
    assert one.template is not other.template
    assert two.pod.spec.node_name == "n1"  # taken out for the comparison, and put back


def test_signatures_tell_apart_what_a_reader_can():
    factory = PodFactory()
    one = factory.info(make_pod("a", labels={"app": "x"}))
    two = factory.info(make_pod("b", labels={"app": "y"}))
    assert one.signature(PodPart.SPEC) == two.signature(PodPart.SPEC)
    assert one.signature(PodPart.SPEC | PodPart.LABELS) != two.signature(PodPart.SPEC | PodPart.LABELS)
    assert one.signature(PodPart.IDENTITY) != two.signature(PodPart.IDENTITY)
    elsewhere = factory.info(make_pod("c", labels={"app": "x"}, namespace="other"))
    assert one.signature(PodPart.NAMESPACE) != elsewhere.signature(PodPart.NAMESPACE)


def test_the_template_cache_is_bounded():
    factory = PodFactory(size=2)
    first = factory.info(make_pod("a", {"cpu": "1"})).template
    for cpu in ("2", "3"):
        factory.info(make_pod("b", {"cpu": cpu}))
    assert factory.info(make_pod("c", {"cpu": "1"})).template is not first


def test_host_ports_of_containers_and_sidecars_only():
    spec = msgspec.convert(
        {
            "metadata": {"name": "p"},
            "spec": {
                "containers": [container(ports=[{"containerPort": 80}, {"hostPort": 8080, "hostIP": "10.0.0.1"}])],
                "initContainers": [
                    container(ports=[{"hostPort": 1}]),
                    container(ports=[{"hostPort": 2, "protocol": "UDP"}], restartPolicy="Always"),
                ],
            },
        },
        Pod,
    ).spec
    assert [(p.ip, p.protocol, p.port) for p in host_ports(spec)] == [("", "UDP", 2), ("10.0.0.1", "TCP", 8080)]

"""The trace's steps from an audit log, an operator log and an agent's trace as they are really written."""

from nodewright.cli.tracesteps import agent_steps, owner_steps, pod_steps, sorted_steps

T = "2026-11-20T10:00:0{}Z"


def write(resource, name, verb, user, received, stored, subresource="", code=201):
    reference = {"resource": resource, "namespace": "default", "name": name, "subresource": subresource}
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {key: value for key, value in reference.items() if value},
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": T.format(received),
        "stageTimestamp": T.format(stored),
    }


AUDIT = [
    write("daemonsets", "hello", "patch", "kubernetes-admin", "0.100", "0.110"),
    write("daemonsets", "hello", "patch", "system:nodewright:operator", "0.150", "0.160", "status", 200),
    write("pods", "", "create", "system:nodewright:operator", "0.190", "0.200"),
    write("pods", "hello-a", "create", "system:nodewright:scheduler", "0.210", "0.220", "binding"),
    write("pods", "hello-a", "patch", "system:node:node1", "0.250", "0.260", "status", 200),
    write("pods", "hello-a", "patch", "system:node:node1", "0.310", "0.320", "status", 200),
    write("daemonsets", "hello", "patch", "kubernetes-admin", "9.000", "9.010"),
]
LOG = [
    {"time": T.format("0.105"), "message": "observed", "object": "other", "namespace": "default"},
    {"time": T.format("0.120"), "message": "observed", "object": "hello", "namespace": "default", "generation": 1},
]
AGENT = [
    {"time": T.format("0.230"), "step": "seen by the agent", "by": "agent node1"},
    {"time": T.format("0.240"), "step": "image ready web", "by": "agent node1"},
    {"time": T.format("0.270"), "step": "sandbox ready", "by": "agent node1"},
    {"time": T.format("0.300"), "step": "container started web", "by": "agent node1"},
]
POD = {
    "metadata": {"namespace": "default", "name": "hello-a", "creationTimestamp": "2026-11-20T10:00:00Z"},
    "spec": {"nodeName": "node1"},
}


def test_the_whole_way_of_a_daemon_pod():
    steps = pod_steps(POD, AUDIT, AGENT, owned=True)
    steps = sorted_steps(owner_steps("daemonsets", "default/hello", AUDIT, LOG, T.format("0.200")) + steps)
    assert [(step.step, step.by) for step in steps] == [
        ("accepted by the API server", "kube-apiserver, for kubernetes-admin"),
        ("stored", "kube-apiserver, etcd"),
        ("seen by the controller", "operator"),
        ("Pod created", "system:nodewright:operator"),
        ("scheduled", "system:nodewright:scheduler"),
        ("seen by the agent", "agent node1"),
        ("image ready", "agent node1"),
        ("sandbox ready", "agent node1"),
        ("container started", "agent node1"),
        ("status Running written", "system:node:node1"),
    ]
    assert steps[-1].time == T.format("0.320"), "the write after the start, not the one before"


def test_a_later_change_of_the_owner_does_not_count():
    steps = owner_steps("daemonsets", "default/hello", AUDIT, LOG, T.format("0.200"))
    assert steps[0].time == T.format("0.100")
    assert owner_steps("daemonsets", "default/none", AUDIT, LOG, T.format("0.200")) == []


def test_refused_writes_are_no_steps():
    refused = [write("pods", "hello-a", "create", "kubernetes-admin", "0.1", "0.2", code=403)]
    assert pod_steps(POD, refused, [], owned=False) == []


def test_a_pod_of_its_own_begins_with_its_own_acceptance():
    audit = [write("pods", "hello-a", "create", "kubernetes-admin", "0.100", "0.110")]
    assert [step.step for step in pod_steps(POD, audit, [], owned=False)] == ["accepted by the API server", "stored"]


def test_the_detail_is_what_follows_the_known_words():
    assert agent_steps(AGENT)[1].detail == "web"
    (odd,) = agent_steps([{"time": T.format("0.1"), "step": "something else", "by": "agent"}])
    assert odd.step == "something else"


def test_an_effect_never_comes_before_its_cause():
    """kube-apiserver notes when it answered; the controller may have seen the write before."""
    early = [{**LOG[1], "time": T.format("0.104")}]
    steps = sorted_steps(owner_steps("daemonsets", "default/hello", AUDIT, early, T.format("0.200")))
    assert [step.step for step in steps] == ["accepted by the API server", "stored", "seen by the controller"]
    assert steps[1].time == T.format("0.104")

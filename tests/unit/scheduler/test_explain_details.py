"""What each filter says is missing at a node: in sentences, with numbers and names."""

import pytest

from nodewright.scheduler.explain import explain
from nodewright.scheduler.profile import PluginConfig, Profile, ProfileConfig
from support.scheduler_builders import info, make_node, make_pod
from support.storage_builders import (
    claim_pod,
    cluster,
    make_capacity,
    make_claim,
    make_class,
    make_csi_node,
    make_driver,
    make_volume,
)

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def zoned(name, zone, **more):
    return make_node(name, labels={ZONE: zone} if zone else {}, **more)


def missing(state, pod, node="n", profile=None):
    """The sentences about one node, by plugin."""
    answer = explain(profile or Profile(), state, info(pod))
    verdict = next(v for v in answer.nodes if v.node == node)
    return {obstacle.plugin: obstacle.details for obstacle in verdict.missing}


def rules_out(state, pod):
    """The sentences about what rules out all nodes."""
    (obstacle,) = explain(Profile(), state, info(pod)).missing
    return obstacle.details


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_a_cordon():
    (sentence,) = missing(cluster(make_node("n", unschedulable=True)), make_pod())["NodeUnschedulable"]
    assert sentence.endswith("does not tolerate node.kubernetes.io/unschedulable:NoSchedule")


def test_a_node_that_is_asked_for_by_name():
    assert missing(cluster(make_node("n")), make_pod(node="m"))["NodeName"] == ["the pod asks for node m"]


def test_taints_one_by_one():
    taints = [
        {"key": "a", "value": "1", "effect": "NoSchedule"},
        {"key": "b", "effect": "NoExecute"},
        {"key": "c", "effect": "NoSchedule"},
        {"key": "d", "effect": "PreferNoSchedule"},
    ]
    pod = make_pod(tolerations=[{"key": "c", "operator": "Exists"}])
    assert missing(cluster(make_node("n", taints=taints)), pod)["TaintToleration"] == [
        "taint a=1:NoSchedule is not tolerated",
        "taint b:NoExecute is not tolerated",
    ]


def required(*terms):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "sentences"),
    [
        (
            {"nodeSelector": {"disk": "ssd", "gpu": "yes", "os": "linux"}},
            ["nodeSelector disk=ssd: the node has disk=hdd", "nodeSelector gpu=yes: the node has no label gpu"],
        ),
        (
            {"affinity": required(expression("disk", "In", "ssd", "nvme"))},
            ["node affinity: wants disk In [ssd, nvme], the node has disk=hdd"],
        ),
        (
            {"affinity": required(expression("disk", "In", "ssd"), expression("gpu", "Exists"))},
            [
                "node affinity, term 1 of 2: wants disk In [ssd], the node has disk=hdd",
                "node affinity, term 2 of 2: wants gpu Exists, the node has no label gpu",
            ],
        ),
        ({"affinity": required({})}, ["node affinity selects no node as it is written: nothing"]),
        (
            {"affinity": required({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]})},
            ["node affinity: wants metadata.name NotIn [n]"],
        ),
    ],
)
def test_labels_that_do_not_match(spec, sentences):
    state = cluster(make_node("n", labels={"disk": "hdd", "os": "linux"}))
    assert missing(state, make_pod(**spec))["NodeAffinity"] == sentences


def test_affinity_that_the_profile_adds():
    args = b'{"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [%s]}}}'
    term = b'{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["x"]}]}'
    profile = Profile(ProfileConfig(plugin_config=[PluginConfig("NodeAffinity", args % term)]))
    (sentence,) = missing(cluster(make_node("n")), make_pod(), profile=profile)["NodeAffinity"]
    assert sentence == "the profile's addedAffinity: wants pool In [x], the node has no label pool"


def test_room_in_numbers():
    state = cluster(
        make_node("n", "4", "8Gi", pods="1", **{"example.com/gpu": "2"}),
        make_pod("old", {"cpu": "3500m", "memory": "6Gi", "example.com/gpu": "1"}, node="n"),
    )
    pod = make_pod(requests={"cpu": "2", "memory": "9Gi", "example.com/gpu": "2"})
    assert missing(state, pod)["NodeResourcesFit"] == [
        "pods: 1 of 1 are there",
        "cpu: needs 2000m, 500m free of 4000m: 1500m short",
        "memory: needs 9Gi, 2Gi free of 8Gi: 7Gi short, more than the whole node has",
        "example.com/gpu: needs 2, 1 free of 2: 1 short",
    ]


def test_who_has_the_port():
    port = [{"hostPort": 80, "protocol": "TCP"}]
    state = cluster(make_node("n"), make_pod("web", node="n", ports=port), make_pod("dns", node="n"))
    wants = [{"hostPort": 80, "hostIP": "10.0.0.1", "protocol": "TCP"}, {"hostPort": 81, "protocol": "TCP"}]
    assert missing(state, make_pod(ports=wants))["NodePorts"] == ["host port 10.0.0.1:80/TCP is used by default/web"]


# --- other Pods ------------------------------------------------------------------------------------------------------


def term(app="db", key=ZONE, **more):
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms):
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def apart(*terms):
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def app(name, label, node, **more):
    return make_pod(name, node=node, labels={"app": label}, **more)


@pytest.mark.parametrize(
    ("zone", "placed", "sentence"),
    [
        ("a", [], f"affinity to pods with app=db: none in {ZONE}=a; no such pod is placed anywhere"),
        (
            "a",
            [app("db-0", "db", "other"), app("db-1", "db", "other")],
            f"affinity to pods with app=db: none in {ZONE}=a; they are in {ZONE}=b (2)",
        ),
        ("", [], f"affinity to pods with app=db: the node has no label {ZONE}"),
    ],
)
def test_company_that_is_missing(zone, placed, sentence):
    state = cluster(zoned("n", zone), zoned("other", "b"), *placed)
    assert missing(state, make_pod(affinity=near(term())))["InterPodAffinity"] == [sentence]


def test_company_that_is_not_wanted_by_name():
    placed = [app(f"db-{number}", "db", "other") for number in range(7)]
    state = cluster(zoned("n", "a"), zoned("other", "a"), *placed)
    (sentence,) = missing(state, make_pod(affinity=apart(term())))["InterPodAffinity"]
    names = ", ".join(f"default/db-{number}" for number in range(5))
    assert sentence == f"anti-affinity to pods with app=db within {ZONE}=a: {names} and 2 more"


def test_pods_that_do_not_want_this_one():
    state = cluster(zoned("n", "a"), app("shy", "db", "n", affinity=apart(term("web", namespaces=["x", "default"]))))
    pod = make_pod(labels={"app": "web"})
    (sentence,) = missing(state, pod)["InterPodAffinity"]
    assert sentence == f"anti-affinity of default/shy to pods with app=web in namespaces default, x within {ZONE}=a"


def spread(**more):
    one = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", **more}
    selector = {"labelSelector": {"matchLabels": {"app": "web"}}}
    return make_pod(labels={"app": "web"}, topologySpreadConstraints=[{**selector, **one}])


def test_spreading_in_numbers():
    placed = [app(f"web-{number}", "web", "n") for number in range(3)]
    state = cluster(zoned("n", "a"), zoned("other", "b"), zoned("none", ""), *placed, app("w", "web", "other"))
    (sentence,) = missing(state, spread())["PodTopologySpread"]
    assert sentence == (
        f"spread over {ZONE} (maxSkew 1): a would have 4 matching pods with this pod and the lowest count is 1, "
        "a skew of 3; now b: 1, a: 3"
    )
    (sentence,) = missing(state, spread(), "none")["PodTopologySpread"]
    assert sentence == f"spread over {ZONE} (maxSkew 1): the node has no label {ZONE}"


def test_spreading_over_more_domains_than_there_are():
    state = cluster(zoned("n", "a"), app("w", "web", "n"))
    (sentence,) = missing(state, spread(minDomains=3))["PodTopologySpread"]
    assert sentence.endswith(
        "the lowest count is 0, a skew of 2; now a: 1; counted from 0, as there are 1 of minDomains 3"
    )


def test_many_domains_are_not_all_listed():
    nodes = [make_node(f"n{number}") for number in range(20)]
    state = cluster(*nodes, app("w", "web", "n3"))
    (sentence,) = missing(state, spread(topologyKey=HOST), "n3")["PodTopologySpread"]
    assert sentence.endswith("now n0: 0, n1: 0, n10: 0, n11: 0, n12: 0 and 15 more")


# --- volumes ---------------------------------------------------------------------------------------------------------


def test_claims_that_rule_out_every_node():
    state = cluster(make_node("n"), make_class("now", "csi", "Immediate"), make_claim("data", "now", "3Gi"))
    sentences = rules_out(state, claim_pod("data"))
    assert sentences == ["claim data (3Gi of class now) is not bound, and does not wait for a node to be bound"]
    assert rules_out(state, claim_pod("nothing")) == ["claim nothing does not exist"]


def test_a_volume_that_is_gone():
    state = cluster(make_node("n"), make_claim("data", volume="gone"))
    (obstacle,) = explain(Profile(), state, info(claim_pod("data"))).missing
    assert obstacle.sentences == ['persistentvolume "gone" not found']


@pytest.mark.parametrize(
    ("objects", "sentence"),
    [
        (
            [make_claim("data", volume="pv"), make_volume("pv", affinity={ZONE: "b"}, claim="data")],
            f"claim data: volume pv is reached only from nodes with {ZONE} In [b]",
        ),
        (
            [make_class(), make_claim("data"), make_volume("pv", affinity={ZONE: "b"})],
            "claim data (1Gi of class wait): no free volume of the class (of 1) suits it and is reached from the node; "
            "the class makes none",
        ),
        (
            [make_class("wait", "csi", "WaitForFirstConsumer", {ZONE: ["b", "c"]}), make_claim("data")],
            f"claim data (1Gi of class wait): the class makes volumes only for nodes with {ZONE} In [b, c]",
        ),
        (
            [make_class("wait", "csi"), make_claim("data", selected="m")],
            "claim data (1Gi of class wait): its volume is being made for node m",
        ),
        (
            [
                make_class("wait", "csi"),
                make_driver("csi"),
                make_capacity("c", "wait", {"matchLabels": {ZONE: "a"}}, "512Mi"),
                make_claim("data"),
            ],
            "claim data (1Gi of class wait): the driver csi has not enough storage left for the node; the largest it "
            "has anywhere is 512Mi",
        ),
    ],
)
def test_volumes_that_cannot_be_had(objects, sentence):
    state = cluster(zoned("n", "a"), *objects)
    assert missing(state, claim_pod("data"))["VolumeBinding"] == [sentence]


def test_two_claims_for_one_volume():
    state = cluster(
        make_node("n"), make_class(), make_claim("one"), make_claim("two", size="2Gi"), make_volume("pv", size="3Gi")
    )
    (sentence,) = missing(state, claim_pod("one", "two"))["VolumeBinding"]
    assert sentence.startswith("claim two (2Gi of class wait): no free volume of the class (of 1)")


def test_a_disk_in_use():
    disk = {"volumes": [{"name": "v", "gcePersistentDisk": {"pdName": "d"}}]}
    state = cluster(make_node("n"), make_pod("old", node="n", **disk))
    assert missing(state, make_pod(**disk))["VolumeRestrictions"] == ["GCE disk d is in use on the node by default/old"]


def test_a_claim_for_one_pod_only():
    claim = make_claim("data", volume="pv", modes=("ReadWriteOncePod",))
    state = cluster(make_node("n"), make_node("m"), claim, make_volume("pv", claim="data"))
    state.add_pod(info(claim_pod("data", name="old")), "m")
    (sentence,) = missing(state, claim_pod("data"))["VolumeRestrictions"]
    assert sentence == "claim data is ReadWriteOncePod and in use by default/old on m"


def test_a_driver_that_has_its_fill():
    objects = [make_class("wait", "csi"), make_csi_node("n", csi=1), make_claim("a"), make_claim("b")]
    state = cluster(make_node("n"), *objects)
    state.add_pod(info(claim_pod("a")), "n")
    assert missing(state, claim_pod("b"))["NodeVolumeLimits"] == ["driver csi: 1 of 1 volumes attached, 1 more needed"]


def test_a_volume_in_another_zone():
    state = cluster(
        zoned("n", "a"), make_claim("data", volume="pv"), make_volume("pv", labels={ZONE: "b__c"}, claim="data")
    )
    assert missing(state, claim_pod("data"))["VolumeZone"] == [f"a volume is in {ZONE} b or c, the node has {ZONE}=a"]

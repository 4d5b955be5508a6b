"""Files to static Pods: identity, defaults, and everything that is refused."""

import json
import random
import re

import msgspec
import pytest

from nodewright.kube.objects import Pod
from nodewright_agent.pods.static.defaults import qos_class
from nodewright_agent.pods.static.manifest import (
    HASH,
    MAX_BYTES,
    SEEN,
    SOURCE,
    ManifestError,
    is_mirror,
    is_static,
    parse,
)

GOOD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {"containers": [{"name": "main", "image": "demo"}]},
}
YAML = """\
---
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - {name: main, image: demo, resources: {limits: {cpu: 1, memory: 64Mi}}}
  volumes: null
---
"""


def read(text, node="Node-1", file="/etc/manifests/web.yaml"):
    data = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
    return parse(data, file, node, "2026-01-01T00:00:00Z")


def change(**spec):
    return {**GOOD, "spec": {**GOOD["spec"], **spec}}


def test_what_a_static_pod_is():
    made = read(GOOD)
    meta = made.pod.metadata
    assert (meta.namespace, meta.name) == ("default", "web-node-1"), "the node's name in lower case"
    assert made.pod.spec.node_name == "Node-1"
    assert meta.annotations == {HASH: meta.uid, SOURCE: "file", SEEN: "2026-01-01T00:00:00Z"}
    assert [(t.operator, t.effect) for t in made.pod.spec.tolerations] == [("Exists", "NoExecute")]
    assert (made.pod.status.phase, made.pod.status.qos_class) == ("Pending", "BestEffort")
    assert is_static(made.pod)
    assert not is_mirror(made.pod)
    faked = msgspec.structs.replace(meta, resource_version="7")
    assert not is_static(msgspec.structs.replace(made.pod, metadata=faked)), "the API cannot make a Pod static"


def test_yaml_with_an_empty_second_document_numbers_and_nulls():
    made = read(YAML)
    assert made.pod.spec.containers[0].resources.requests == {"cpu": "1", "memory": "64Mi"}
    assert made.pod.status.qos_class == "Guaranteed"


def test_the_uid_tells_node_file_and_content_apart_and_nothing_else():
    first = read(GOOD)
    assert read(json.dumps(GOOD, indent=4)).pod.metadata.uid == first.pod.metadata.uid
    others = [read(GOOD, node="other"), read(GOOD, file="/etc/manifests/copy.yaml"), read(change(hostNetwork=True))]
    assert len({first.pod.metadata.uid, *(one.pod.metadata.uid for one in others)}) == 4


def test_a_uid_of_its_own_stays_and_the_digest_tells_changes():
    own = {**GOOD, "metadata": {"name": "web", "uid": "my-uid"}}
    first, second = read(own), read({**own, "spec": change(hostPID=True)["spec"]})
    assert first.pod.metadata.uid == second.pod.metadata.uid == "my-uid"
    assert first.digest != second.digest
    assert first.pod.metadata.annotations[HASH] == "my-uid"


def test_the_critical_classes_have_their_priority():
    assert read(change(priorityClassName="system-node-critical")).pod.spec.priority == 2_000_001_000
    made = read(change(priorityClassName="mine"))
    assert made.pod.spec.priority is None
    assert "priority" not in made.body["spec"], "the API server computes it for the mirror"


MAIN = {"name": "m", "image": "i"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no object"),
        ("[1, 2]", "no object"),
        ("a: b: c", "couldn't parse as pod"),
        ("\x00", "couldn't parse"),
        (b"\xff\xfe\xff", "couldn't parse"),
        ("!!python/object/apply:os.system [id]", "couldn't parse"),
        ('{"kind": "Pod"}', "apiVersion None"),
        ({**GOOD, "kind": "List"}, "kind is 'List'"),
        (YAML + YAML, "2 documents in one file"),
        ({**GOOD, "metadata": []}, "couldn't parse as pod"),
        ({**GOOD, "metadata": {}}, "name is needed for the pod"),
        ({**GOOD, "metadata": {"name": "Upper_Case"}}, "metadata.name: Invalid value"),
        ({**GOOD, "metadata": {"name": "web", "uid": "../../etc"}}, "metadata.uid: Invalid value"),
        ({**GOOD, "metadata": {"name": "web", "namespace": "a/b"}}, "metadata.namespace"),
        ({**GOOD, "spec": {}}, "spec.containers: Required value"),
        ({**GOOD, "spec": {"containers": "x"}}, "couldn't parse as pod"),
        (change(containers=[{"name": "main", "image": "a"}, {"name": "main", "image": "b"}]), "duplicate value"),
        (change(containers=[{"name": "main"}]), "image: Required value"),
        (change(containers=[{"name": "m", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/"}]}]), "found:"),
        (change(containers=[{"name": "m", "image": "i", "ports": [{"containerPort": 0}]}]), "between 1 and 65535"),
        (change(containers=[{"name": "m", "image": "i", "resources": {"limits": {"cpu": "lots"}}}]), "invalid pod"),
        (change(containers=[{**MAIN, "resources": {"limits": {"ephemeral-storage": "2gb"}}}]), "m: resources.requests"),
        (change(containers=[MAIN], resources={"limits": {"cpu": "lots"}}), "invalid pod"),
        (change(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "much"}}]), "invalid pod: spec"),
        (change(containers=[MAIN], overhead={"memory": "x"}), "invalid pod: spec"),
        (change(restartPolicy="Sometimes"), "restartPolicy"),
        (change(ephemeralContainers=[{"name": "e", "image": "i"}]), "cannot be set on create"),
        (change(containers=[{**MAIN, "resources": {"limits": {"cpu": "-1"}}}]), "must be greater than or equal to 0"),
        (change(containers=[MAIN], resources={"limits": {"memory": "-1Gi"}}), "must be greater than or equal to 0"),
        (change(containers=[MAIN], overhead={"cpu": "-1"}), "spec.overhead.requests[cpu]: Invalid value"),
        (change(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "-1"}}]), "sizeLimit: Invalid value"),
        (
            change(containers=[{**MAIN, "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1001m"}}}]),
            'requests: Invalid value: "1001m": must be less than or equal to cpu limit of 1',
        ),
        (change(containers=[{**MAIN, "volumeMounts": [{"name": "v", "mountPath": ""}]}], volumes=[{"name": "v"}]),
         "mountPath: Required value"),
        (change(activeDeadlineSeconds=0), "activeDeadlineSeconds: Invalid value: 0: must be between 1 and"),
        (change(activeDeadlineSeconds=1 << 40), "must be between 1 and 2147483647"),
        (change(hostname="a\nb"), "spec.hostname: Invalid value"),
        (change(hostAliases=[{"ip": "1.2.3.4\n6.6.6.6 bank", "hostnames": ["a"]}]), "must be a valid IP address"),
        (change(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a\n6.6.6.6 bank"]}]), "hostAliases.hostnames: Invalid"),
        (change(dnsPolicy="None"), "must provide at least one DNS nameserver"),
        (change(dnsConfig={"nameservers": ["here"]}), "dnsConfig.nameservers: Invalid value"),
        (change(dnsConfig={"searches": ["a\nnameserver 6.6.6.6"]}), "dnsConfig.searches: Invalid value"),
        (change(dnsConfig={"options": [{"name": "a\nnameserver 6.6.6.6"}]}), "dnsConfig.options: Invalid value"),
        (change(dnsConfig={"options": [{"name": "ndots", "value": "1\n"}]}), "dnsConfig.options: Invalid value"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {day: 2026-01-01}}", "quote the text"),
        (b" " * (MAX_BYTES + 1), "larger than"),
        (b"a: " + b"[" * 100_000, "couldn't parse as pod: nested deeper than"),
        (b"[" * 100_000, "couldn't parse as pod: nested deeper than"),
        (b"apiVersion: v1\nkind: Pod\nmetadata: &a {name: web, labels: *a}", "an alias stands within"),
    ],
)  # fmt: skip
def test_what_is_no_static_pod(text, told):
    with pytest.raises(ManifestError, match=re.escape(told)):
        read(text)


def _env(**source):
    return change(containers=[{"name": "m", "image": "i", "env": [{"name": "A", "valueFrom": source}]}])


def _volume(**source):
    return change(volumes=[{"name": "v", **source}])


@pytest.mark.parametrize(
    ("manifest", "resource"),
    [
        (change(serviceAccountName="x"), "serviceaccounts"),
        (change(serviceAccount="x"), "serviceaccounts"),
        (change(imagePullSecrets=[{"name": "x"}]), "secrets"),
        (_env(secretKeyRef={"name": "x", "key": "k"}), "secrets"),
        (_env(configMapKeyRef={"name": "x", "key": "k"}), "configmaps"),
        (change(containers=[{"name": "m", "image": "i", "envFrom": [{"configMapRef": {"name": "x"}}]}]), "configmaps"),
        (_volume(secret={"secretName": "x"}), "secrets"),
        (_volume(configMap={"name": "x"}), "configmaps"),
        (_volume(projected={"sources": [{"secret": {"name": "x"}}]}), "secrets"),
        (
            _volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
            "serviceaccounts (via projected volumes)",
        ),
        (_volume(projected={"sources": [{"clusterTrustBundle": {"path": "t"}}]}), "clustertrustbundles"),
        (_volume(persistentVolumeClaim={"claimName": "x"}), "persistentvolumeclaims"),
        (_volume(csi={"driver": "x"}), "csidrivers (via CSI volumes)"),
        (change(resourceClaims=[{"name": "x"}]), "resourceclaims"),
    ],
)  # fmt: skip
def test_static_pods_may_not_need_the_api(manifest, resource):
    with pytest.raises(ManifestError) as caught:
        read(manifest)
    assert str(caught.value) == f"static pods may not reference {resource}"


def test_what_needs_no_api_is_taken():
    fields = {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}
    volumes = [
        {"name": "a"},
        {"name": "b", "hostPath": {"path": "/x"}},
        {"name": "c", "projected": {"sources": [{"downwardAPI": fields}]}},
        {"name": "d", "downwardAPI": fields},
    ]
    assert read(change(volumes=volumes)).pod.spec.volumes[0].empty_dir is not None


def test_names_and_amounts_that_are_possible():
    dns = {"nameservers": ["10.0.0.1", "fd00::1"], "searches": [".", "a.b.", "_tcp.x"], "options": [{"name": "edns0"}]}
    aliases = [{"ip": "::1", "hostnames": ["a", "b.c"]}]
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "0"}}
    fields = {"dnsPolicy": "None", "dnsConfig": dns, "hostAliases": aliases, "activeDeadlineSeconds": 1}
    assert read(change(containers=[{**MAIN, "resources": resources}], **fields)).pod.spec.dns_config is not None


def test_whatever_a_file_holds_it_is_a_pod_or_told():
    """Bytes of a good file, changed at random: nothing but a ManifestError may come out."""
    seed = random.Random(7)
    for _ in range(400):
        data = bytearray(YAML.encode())
        for _ in range(seed.randint(1, 8)):
            data[seed.randrange(len(data))] = seed.choice(b"\x00{}[]:-&*!|>'\"%@`0a \n\xff")
        try:
            read(bytes(data))
        except ManifestError:
            pass


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"requests": {"ephemeral-storage": "1Gi"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}], "Burstable"),
    ],
)
def test_qos_class(resources, qos):
    containers = [{"name": f"c{i}", "image": "i", "resources": one} for i, one in enumerate(resources)]
    pod = msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": containers}}, Pod)
    assert qos_class(pod) == qos

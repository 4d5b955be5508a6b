"""Manifests and dumps as text: what is read, and what is said about what cannot be read."""

import pytest

from nodewright.scheduler.simulation.documents import ManifestError, read
from nodewright.scheduler.simulation.snapshot import LAST_APPLIED, from_documents

LIST = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata:
    name: n
    creationTimestamp: 2026-01-01T00:00:00Z
  status: {allocatable: {cpu: 2, memory: 1Gi, pods: 10}}
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata: {name: r, namespace: x, annotations: {%s: secret, note: kept}}
  spec: {selector: {matchLabels: {app: r}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: p, namespace: x}
  spec: {nodeName: n, containers: [{name: c, image: i, env: [{name: PASSWORD, value: secret}]}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: done, namespace: x}
  status: {phase: Failed}
- apiVersion: v1
  kind: Secret
  metadata: {name: s}
"""


def test_documents_lists_and_typed_lists():
    text = (
        '{"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}, {"metadata": {"name": "q"}}]}'
    )
    assert [(d.kind, d.title, d.at) for d in read(text, "f")] == [
        ("Pod", "Pod p", "document 1, items[0]"),
        ("Pod", "Pod q", "document 1, items[1]"),
    ]
    several = "# only a comment\n---\nkind: Pod\nmetadata: {name: a}\n---\n---\nkind: List\nitems: [{kind: Node}]\n"
    assert [(d.kind, d.at) for d in read(several, "f")] == [("Pod", "document 1"), ("Node", "document 3, items[0]")]
    assert read("", "f") == []
    assert read('{"kind": "Pod"}', "f")[0].kind == "Pod"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "f: not YAML: while parsing"),
        ("{a: ", "f: not YAML: while parsing"),
        ("- 1", "f, document 1: expected an object with apiVersion and kind, not list"),
        ("kind: Pod\n---\nhello", "f, document 2: expected an object"),
        ("metadata: {}", "f, document 1: kind: Required value"),
        ("kind: List\nitems: [{kind: Pod}, 3]", "f, document 1, items[1]: expected an object"),
        ("a: !!python/object:os.system {}", "f: not YAML: could not determine a constructor"),
    ],
)
def test_text_that_cannot_be_read(text, message):
    with pytest.raises(ManifestError) as raised:
        read(text, "f")
    assert str(raised.value).startswith(message)


def test_a_dump_has_what_scheduling_reads_and_nothing_else():
    snapshot = from_documents(read(LIST % LAST_APPLIED, "dump"))
    dump = snapshot.dump()
    assert [(item["kind"], item["metadata"]["name"]) for item in dump["items"]] == [
        ("Node", "n"), ("Pod", "p"), ("ReplicaSet", "r"),
    ]  # fmt: skip
    assert "secret" not in str(dump)
    assert dump["items"][2]["metadata"]["annotations"] == {"note": "kept"}
    assert dump["items"][2]["spec"] == {"selector": {"matchLabels": {"app": "r"}}}
    assert dump["items"][0]["status"]["allocatable"] == {"cpu": "2", "memory": "1Gi", "pods": "10"}


def test_a_dump_of_a_dump_is_the_same():
    import msgspec

    once = from_documents(read(LIST % LAST_APPLIED, "dump")).dump()
    again = from_documents(read(msgspec.json.encode(once).decode(), "again")).dump()
    assert again == once

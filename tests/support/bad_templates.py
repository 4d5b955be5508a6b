"""Pod templates with one fault each, and what is said about it: `(id, template, [cause, ...])`.

The unit tests hold our rules against the texts, the integration tests hold the texts against kube-apiserver's apps/v1.
"""

from typing import Any

SPEC = "spec.template.spec"
CONTAINER = f"{SPEC}.containers[0]"
NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def template(
    meta: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A good template, changed."""
    return {
        "metadata": {"labels": {"app": "x"}, **(meta or {})},
        "spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec},
    }


def _node_affinity(**requirement: Any) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
    return template(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})


def _node_field(**requirement: Any) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchFields": [requirement]}]}
    return template(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})


def _pod_affinity(**term: Any) -> dict[str, Any]:
    return template(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


_NODE_TERM = f"{SPEC}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
_NODE = f"{_NODE_TERM}.matchExpressions[0]"
_FIELD = f"{_NODE_TERM}.matchFields[0]"
_POD = f"{SPEC}.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
_PORT = {"containerPort": 80}

BAD: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "label key",
        template(meta={"labels": {"app": "x", "-bad": "y"}}),
        [f'spec.template.labels: Invalid value: "-bad": name part {NAME_RULE}'],
    ),
    (
        "label key with two slashes",
        template(meta={"labels": {"app": "x", "a/b/c": "y"}}),
        [
            f'spec.template.labels: Invalid value: "a/b/c": a valid label key {NAME_RULE} with an optional DNS '
            "subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ],
    ),
    (
        "label key with an empty prefix",
        template(meta={"labels": {"app": "x", "/c": "y"}}),
        ['spec.template.labels: Invalid value: "/c": prefix part must be non-empty'],
    ),
    (
        "label key too long",
        template(meta={"labels": {"app": "x", "k" * 64: "y"}}),
        [f'spec.template.labels: Invalid value: "{"k" * 64}": name part must be no more than 63 bytes'],
    ),
    (
        "label value",
        template(meta={"labels": {"app": "x", "a": "b c"}}),
        [f'spec.template.labels: Invalid value: "b c": {VALUE_RULE}'],
    ),
    (
        "annotation key",
        template(meta={"annotations": {"a b": "y"}}),
        [f'spec.template.annotations: Invalid value: "a b": name part {NAME_RULE}'],
    ),
    (
        "annotations too long",
        template(meta={"annotations": {"a": "y" * 262144}}),
        ["spec.template.annotations: Too long: may not be more than 262144 bytes"],
    ),
    (
        "init container of the same name",
        template(initContainers=[{"name": "c", "image": "i"}]),
        [f'{SPEC}.initContainers[0].name: Duplicate value: "c"'],
    ),
    (
        "port name used twice",
        template(container={"ports": [{**_PORT, "name": "a"}, {"containerPort": 81, "name": "a"}]}),
        [f'{CONTAINER}.ports[1].name: Duplicate value: "a"'],
    ),
    (
        "port name",
        template(container={"ports": [{**_PORT, "name": "1-"}]}),
        [
            f'{CONTAINER}.ports[0].name: Invalid value: "1-": must contain at least one letter (a-z)',
            f'{CONTAINER}.ports[0].name: Invalid value: "1-": must not begin or end with a hyphen',
        ],
    ),
    (
        "port name too long, in capitals",
        template(container={"ports": [{**_PORT, "name": "ABCDEFGHIJKLMNOPa"}]}),
        [
            f'{CONTAINER}.ports[0].name: Invalid value: "ABCDEFGHIJKLMNOPa": must be no more than 15 characters',
            f'{CONTAINER}.ports[0].name: Invalid value: "ABCDEFGHIJKLMNOPa": must contain only alpha-numeric '
            "characters (a-z, 0-9), and hyphens (-)",
        ],
    ),
    (
        "host port used twice",
        template(
            containers=[
                {"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 8080}]},
                {"name": "b", "image": "i", "ports": [{"containerPort": 81, "hostPort": 8080}]},
            ]
        ),
        [f'{SPEC}.containers[1].ports[0].hostPort: Duplicate value: "TCP//8080"'],
    ),
    (
        "mount of a missing volume",
        template(container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
        [f'{CONTAINER}.volumeMounts[0].name: Not found: "v"'],
    ),
    (
        "two kinds of sub-path",
        template(
            container={"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a", "subPathExpr": "b"}]},
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        [
            f'{CONTAINER}.volumeMounts[0].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually '
            "exclusive"
        ],
    ),
    (
        "request above the limit",
        template(container={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}),
        [f'{CONTAINER}.resources.requests: Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi'],
    ),
    (
        "device requested in part",
        template(container={"resources": {"requests": {"example.com/d": "1"}, "limits": {"example.com/d": "2"}}}),
        [f'{CONTAINER}.resources.requests: Invalid value: "1": must be equal to example.com/d limit of 2'],
    ),
    (
        "negative request",
        template(container={"resources": {"requests": {"cpu": "-1"}}}),
        [f'{CONTAINER}.resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0'],
    ),
    (
        "node selector key",
        template(nodeSelector={"a b": "c"}),
        [f'{SPEC}.nodeSelector: Invalid value: "a b": name part {NAME_RULE}'],
    ),
    (
        "node selector value",
        template(nodeSelector={"a": "b/c"}),
        [f'{SPEC}.nodeSelector: Invalid value: "b/c": {VALUE_RULE}'],
    ),
    (
        "toleration without key",
        template(tolerations=[{"operator": "Equal", "value": "a"}]),
        [
            f'{SPEC}.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, '
            'which means "match all values and all keys"'
        ],
    ),
    (
        "toleration of existence with a value",
        template(tolerations=[{"key": "k", "operator": "Exists", "value": "a"}]),
        [f"{SPEC}.tolerations[0].operator: Invalid value: \"a\": value must be empty when `operator` is 'Exists'"],
    ),
    (
        "toleration seconds of the wrong effect",
        template(tolerations=[{"key": "k", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        [
            f"{SPEC}.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when "
            "`tolerationSeconds` is set"
        ],
    ),
    (
        "toleration value",
        template(tolerations=[{"key": "k", "operator": "Equal", "value": "a b"}]),
        [f'{SPEC}.tolerations[0].operator: Invalid value: "a b": {VALUE_RULE}'],
    ),
    (
        "toleration key",
        template(tolerations=[{"key": "k k", "operator": "Exists"}]),
        [f'{SPEC}.tolerations[0].key: Invalid value: "k k": name part {NAME_RULE}'],
    ),
    (
        "node affinity without values",
        _node_affinity(key="a", operator="In"),
        [f"{_NODE}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'"],
    ),
    (
        "node affinity with values it cannot have",
        _node_affinity(key="a", operator="Exists", values=["b"]),
        [f"{_NODE}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"],
    ),
    (
        "node affinity with two bounds",
        _node_affinity(key="a", operator="Gt", values=["1", "2"]),
        [f"{_NODE}.values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"],
    ),
    (
        "node affinity value",
        _node_affinity(key="a", operator="In", values=["b c"]),
        [f'{_NODE}.values[0]: Invalid value: "b c": {VALUE_RULE}'],
    ),
    (
        "node field",
        _node_field(key="metadata.uid", operator="In", values=["a"]),
        [f'{_FIELD}.key: Invalid value: "metadata.uid": not a valid field selector key'],
    ),
    (
        "node field operator",
        _node_field(key="metadata.name", operator="Exists"),
        [f'{_FIELD}.operator: Invalid value: "Exists": not a valid selector operator'],
    ),
    (
        "node field values",
        _node_field(key="metadata.name", operator="In", values=["a", "b"]),
        [
            f"{_FIELD}.values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node "
            "field selector"
        ],
    ),
    (
        "pod affinity without topology",
        _pod_affinity(labelSelector={"matchLabels": {"a": "b"}}, topologyKey=""),
        [
            f"{_POD}.topologyKey: Required value: can not be empty",
            f'{_POD}.topologyKey: Invalid value: "": name part must be non-empty',
            f'{_POD}.topologyKey: Invalid value: "": name part {NAME_RULE}',
        ],
    ),
    (
        "pod affinity selector",
        _pod_affinity(labelSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}, topologyKey="t"),
        [
            f"{_POD}.labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is "
            "'In' or 'NotIn'"
        ],
    ),
    (
        "pod affinity key",
        _pod_affinity(labelSelector={"matchLabels": {"a b": "b"}}, topologyKey="t"),
        [f'{_POD}.labelSelector.matchLabels: Invalid value: "a b": name part {NAME_RULE}'],
    ),
    (
        "restart policy",
        template(restartPolicy="Never"),
        [f'{SPEC}.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
    ),
    (
        "deadline",
        template(activeDeadlineSeconds=5),
        [f"{SPEC}.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"],
    ),
]

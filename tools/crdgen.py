"""Generate the DaemonSet CRD from kube-apiserver's own OpenAPI description of apps/v1.

    kubectl get --raw /openapi/v3/apis/apps/v1 | python tools/crdgen.py > $CRDS/daemonsets.nodewright.dev.yaml

Custom resources need a *structural* schema: no $ref, one type per field, value rules apart from types. OpenAPI v3
as the API server publishes it is close but not that; this script resolves the references, replaces the two union
types (Quantity, IntOrString), leaves the defaults out (pods get theirs when they are created; the template stays as
written), and adds what apps/v1 checks in Go and a schema can express: limits, patterns and CEL rules with
upstream's messages.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

import crdextensions

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
PERCENT_OR_COUNT = r"^([0-9]|[1-9][0-9]|100)%$"

# A label map: values are limited as everywhere in Kubernetes; the bound on their number keeps CEL's cost estimate
# finite.
LABELS: Schema = {
    "type": "object",
    "maxProperties": 128,
    "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
}

# Only the part of ObjectMeta that a template can give to its pods.
TEMPLATE_META: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "generateName": {"type": "string"},
        "namespace": {"type": "string"},
        "creationTimestamp": {"type": "string", "format": "date-time", "nullable": True},
        "labels": LABELS,
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    },
}

# (definition, field) -> rules that validation.go has and OpenAPI lacks.
EXTRA: dict[tuple[str, str], Schema] = {
    ("PodSpec", "containers"): {"minItems": 1},
    ("Container", "name"): {"minLength": 1, "maxLength": 63, "pattern": DNS_LABEL},
    ("Container", "image"): {"minLength": 1},
    ("ContainerPort", "containerPort"): {"minimum": 1, "maximum": 65535},
    ("ContainerPort", "hostPort"): {"minimum": 0, "maximum": 65535},
    ("EnvVar", "name"): {"minLength": 1},
    ("Volume", "name"): {"minLength": 1, "maxLength": 63, "pattern": DNS_LABEL},
    ("VolumeMount", "name"): {"minLength": 1},
    ("VolumeMount", "mountPath"): {"minLength": 1},
    ("Probe", "initialDelaySeconds"): {"minimum": 0},
    ("Probe", "timeoutSeconds"): {"minimum": 0},
    ("Probe", "periodSeconds"): {"minimum": 0},
    ("Probe", "successThreshold"): {"minimum": 0},
    ("Probe", "failureThreshold"): {"minimum": 0},
    ("PreferredSchedulingTerm", "weight"): {"minimum": 1, "maximum": 100},
    ("WeightedPodAffinityTerm", "weight"): {"minimum": 1, "maximum": 100},
    ("TopologySpreadConstraint", "maxSkew"): {"minimum": 1},
    ("NodeSelector", "nodeSelectorTerms"): {"minItems": 1},
}
# Lists that apps/v1 declares as maps but in which it accepts the same key twice (with a warning). A custom resource's
# map lists are checked, so these become atomic: any DaemonSet that apps/v1 takes must be taken here too.
ATOMIC = {("Container", "env"), ("Container", "ports")}
EXTRA_REQUIRED = {"Container": ["image"]}
# Refused in templates by apps/v1; absent here, so that the API server names the field as unknown.
DROPPED = {("PodSpec", "ephemeralContainers")}


class Generator:
    """Resolves OpenAPI definitions into structural schemas."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        """`definitions` is `components.schemas` of the OpenAPI v3 document."""
        self.definitions = definitions

    def resolve(self, name: str) -> Schema:
        """The structural schema of the definition with this full name."""
        short = name.rsplit(".", 1)[-1]
        if short == "Quantity":
            # Numbers and strings; `cpu: 0.5` is legal in apps/v1, which x-kubernetes-int-or-string would refuse.
            return {
                "x-kubernetes-preserve-unknown-fields": True,
                "pattern": QUANTITY,
                "maxProperties": 0,
                "maxItems": 0,
            }
        if short == "IntOrString":
            return {"x-kubernetes-int-or-string": True}
        if short == "ObjectMeta":
            return TEMPLATE_META
        source = self.definitions[name]
        out: Schema = {"type": source["type"]}
        if "format" in source:
            out["format"] = source["format"]
        self._extensions(source, out)
        properties = {
            field: self._field(short, field, value)
            for field, value in source.get("properties", {}).items()
            if (short, field) not in DROPPED
        }
        if properties:
            out["properties"] = properties
        required = sorted({*source.get("required", []), *EXTRA_REQUIRED.get(short, [])})
        if required:
            out["required"] = required
        return out

    def _field(self, owner: str, field: str, source: Schema) -> Schema:
        out = self.convert(source)
        text = shorten(source.get("description", ""))
        if text:
            out = {"description": text, **out}
        out.update(EXTRA.get((owner, field), {}))
        if (owner, field) in ATOMIC:
            out["x-kubernetes-list-type"] = "atomic"
            del out["x-kubernetes-list-map-keys"]
        for key in out.get("x-kubernetes-list-map-keys", []):
            # A key of a list map must be required or have a default; upstream's is TCP for protocols, else "".
            if key not in out["items"].get("required", []):
                out["items"]["properties"][key]["default"] = "TCP" if key == "protocol" else ""
        return out

    def convert(self, source: Schema) -> Schema:
        """The structural form of an inline schema."""
        if "$ref" in source:
            return dict(self.resolve(source["$ref"].removeprefix(PREFIX)))
        if "allOf" in source:
            (only,) = source["allOf"]
            out = self.convert(only)
        else:
            out = {"type": source["type"]}
            for key in ("format", "enum"):
                if key in source:
                    out[key] = source[key]
            if "items" in source:
                out["items"] = self.convert(source["items"])
            if "additionalProperties" in source:
                out["additionalProperties"] = self.convert(source["additionalProperties"])
        if out.get("format") == "int-or-string":
            del out["format"]
        self._extensions(source, out)
        return out

    @staticmethod
    def _extensions(source: Schema, out: Schema) -> None:
        for key in ("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"):
            if key in source:
                out[key] = source[key]


def shorten(text: str, limit: int = 110) -> str:
    """The first sentence of a description: enough for `kubectl explain`, and short enough for `kubectl apply`."""
    text = " ".join(text.split())
    first = text.split(". ", 1)[0].rstrip(".")
    return first if len(first) <= limit else first[: limit - 1].rsplit(" ", 1)[0] + "…"


def rule(expression: str, message: str, path: str | None = None, reason: str | None = None, **more: Any) -> Schema:
    """One x-kubernetes-validations entry."""
    out: Schema = {"rule": expression, "message": message, **more}
    if path is not None:
        out["fieldPath"] = path
    if reason is not None:
        out["reason"] = reason
    return out


SELECTOR_MATCHES = (
    "has(self.template.metadata) && has(self.template.metadata.labels)"
    " && (!has(self.selector.matchLabels) || self.selector.matchLabels.all(k,"
    " k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))"
    " && (!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e,"
    " e.operator == 'Exists' ? e.key in self.template.metadata.labels :"
    " e.operator == 'DoesNotExist' ? !(e.key in self.template.metadata.labels) :"
    " e.operator == 'In' ? e.key in self.template.metadata.labels && self.template.metadata.labels[e.key] in e.values :"
    " !(e.key in self.template.metadata.labels && self.template.metadata.labels[e.key] in e.values)))"
)
NONZERO = "(type({0}) == int ? int({0}) != 0 : string({0}) != '0%')"
UNAVAILABLE, SURGE = NONZERO.format("self.maxUnavailable"), NONZERO.format("self.maxSurge")


def spec_schema(generator: Generator) -> Schema:
    """apps/v1's DaemonSetSpec with the rules of ValidateDaemonSet."""
    spec = generator.resolve("io.k8s.api.apps.v1.DaemonSetSpec")
    fields = spec["properties"]
    fields["minReadySeconds"].update(minimum=0)
    fields["revisionHistoryLimit"].update(minimum=0, default=10)
    selector = fields["selector"]
    selector["properties"]["matchLabels"].update(LABELS)
    expressions = selector["properties"]["matchExpressions"]
    expressions["maxItems"] = 32
    item = expressions["items"]["properties"]
    item["operator"]["enum"] = ["In", "NotIn", "Exists", "DoesNotExist"]
    item["key"].update(minLength=1, maxLength=317)
    item["values"]["maxItems"] = 64
    item["values"]["items"].update(maxLength=63, pattern=LABEL_VALUE)
    expressions["items"]["x-kubernetes-validations"] = [
        rule(
            "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : true",
            "must be specified when `operator` is 'In' or 'NotIn'",
            ".values",
            "FieldValueRequired",
        ),
        rule(
            "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || size(self.values) == 0 : true",
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ".values",
            "FieldValueForbidden",
        ),
    ]
    selector["x-kubernetes-validations"] = [
        rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0)"
            " || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "empty selector is invalid for daemonset",
        ),
        rule("self == oldSelf", "field is immutable"),
    ]
    fields["template"]["required"] = ["spec"]
    pod = fields["template"]["properties"]["spec"]["properties"]
    pod["restartPolicy"]["enum"] = ["Always", "OnFailure", "Never"]
    strategy_schema(fields["updateStrategy"])
    fields["updateStrategy"]["properties"]["rollingUpdate"]["properties"].update(
        crdextensions.rollout_fields(rule, selector)
    )
    fields.update(crdextensions.spec_fields(rule, selector, pod["containers"]["items"]))
    spec["x-kubernetes-validations"] = [
        # Without labels in the template the path of the field would not resolve; the rule names the nearest one that
        # does.
        rule(SELECTOR_MATCHES, "`selector` does not match template `labels`", ".template.metadata.labels"),
        *crdextensions.spec_rules(rule),
    ]
    return spec


def strategy_schema(strategy: Schema) -> None:
    """Defaults and rules of DaemonSetUpdateStrategy (maxUnavailable 1, maxSurge 0; exactly one of them is not zero)."""
    strategy["default"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    strategy["properties"]["type"]["default"] = "RollingUpdate"
    rolling = strategy["properties"]["rollingUpdate"]
    for name, default in (("maxUnavailable", 1), ("maxSurge", 0)):
        field = rolling["properties"][name]
        field["default"] = default
        field["x-kubernetes-validations"] = [
            rule("type(self) == int ? int(self) >= 0 : true", "must be greater than or equal to 0"),
            rule(
                "type(self) == string ? string(self).matches('^[0-9]+%$') : true",
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%')",
            ),
            rule(
                "type(self) == string && string(self).matches('^[0-9]+%$')"
                f" ? string(self).matches('{PERCENT_OR_COUNT}') : true",
                "must not be greater than 100%",
            ),
        ]
    rolling["x-kubernetes-validations"] = [
        rule(f"!({UNAVAILABLE} && {SURGE})", "may not be set when maxUnavailable is non-zero", ".maxSurge"),
        rule(f"{UNAVAILABLE} || {SURGE}", "cannot be 0 when maxSurge is 0", ".maxUnavailable", "FieldValueRequired"),
    ]


CONDITIONS: Schema = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": {"type": "string", "maxLength": 316},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {"type": "string", "maxLength": 1024},
            "message": {"type": "string", "maxLength": 32768},
        },
    },
}


def status_schema(generator: Generator) -> Schema:
    """apps/v1's DaemonSetStatus; all counters optional, conditions with observedGeneration."""
    status = generator.resolve("io.k8s.api.apps.v1.DaemonSetStatus")
    status.pop("required", None)
    status["properties"]["conditions"] = CONDITIONS
    status["properties"].update(crdextensions.status_fields())
    return status


def column(name: str, path: str, kind: str = "integer", priority: int = 0) -> Schema:
    """One additionalPrinterColumns entry."""
    out: Schema = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        out["priority"] = priority
    return out


def daemonset_crd(generator: Generator) -> Schema:
    """The whole CustomResourceDefinition; columns as `kubectl get daemonsets` prints them."""
    columns = [
        column("Desired", ".status.desiredNumberScheduled"),
        column("Current", ".status.currentNumberScheduled"),
        column("Ready", ".status.numberReady"),
        column("Up-To-Date", ".status.updatedNumberScheduled"),
        column("Available", ".status.numberAvailable"),
        column("Node Selector", ".spec.template.spec.nodeSelector", "string"),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("Containers", ".spec.template.spec.containers[*].name", "string", 1),
        column("Images", ".spec.template.spec.containers[*].image", "string", 1),
        column("Selector", ".spec.selector.matchLabels", "string", 1),
        column("Reason", ".status.conditions[?(@.type=='Ready')].reason", "string", 1),
        column("Rollout", ".status.conditions[?(@.type=='Progressing')].reason", "string", 1),
    ]
    schema = {
        "description": "Runs one pod on every eligible node. Any apps/v1 DaemonSet works with this apiVersion.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(generator),
            "status": status_schema(generator),
        },
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "daemonsets.nodewright.dev"},
        "spec": {
            "group": "nodewright.dev",
            "scope": "Namespaced",
            "names": {
                "kind": "DaemonSet",
                "listKind": "DaemonSetList",
                "plural": "daemonsets",
                "singular": "daemonset",
                "shortNames": ["nds"],
                "categories": ["all", "nodewright"],
            },
            "versions": [version],
        },
    }


class _Plain(yaml.SafeDumper):
    """Shared parts are written out: `kubectl` reads anchors, people and reviewers do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> None:
    """Read OpenAPI JSON on stdin, write the CRD as YAML on stdout."""
    document = json.load(sys.stdin)
    crd = daemonset_crd(Generator(document["components"]["schemas"]))
    size = len(json.dumps(crd, separators=(",", ":")))
    if size > 250_000:
        sys.exit(f"the CRD has {size} bytes; kubectl apply keeps a copy in an annotation, which may hold 262144")
    sys.stdout.write("# Generated by tools/crdgen.py from kube-apiserver's OpenAPI of apps/v1; do not edit.\n")
    yaml.dump(crd, sys.stdout, Dumper=_Plain, sort_keys=False, width=140, allow_unicode=True)


if __name__ == "__main__":
    main()

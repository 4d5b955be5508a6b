"""The schema of the fields that our DaemonSet has beyond apps/v1; `crdgen.py` puts it into the CRD.

The structs that the controller reads are in operator/nodewright/controllers/daemonset/extensions.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
Rule = Callable[..., Schema]

PERCENT_OR_COUNT = r"^([0-9]|[1-9][0-9]|100)%$"
# NAME or NAMESPACE/NAME of a DaemonSet
DAEMONSET_NAME = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# What a class or a container may be called.
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
MANY = 32


def amount(description: str) -> Schema:
    """A count or a percentage; by a pattern, for CEL rules inside lists would be too dear."""
    return {
        "description": description,
        "x-kubernetes-int-or-string": True,
        "minimum": 0,
        "pattern": PERCENT_OR_COUNT,
    }


def label_selector(selector: Schema, description: str) -> Schema:
    """A selector of nodes: as the DaemonSet's own, but it may change, and it may not be left empty by mistake."""
    out = copy.deepcopy(selector)
    out["description"] = description
    out["x-kubernetes-validations"] = [r for r in out["x-kubernetes-validations"] if "immutable" not in r["message"]]
    for entry in out["x-kubernetes-validations"]:
        entry["message"] = "must have matchLabels or matchExpressions; an empty selector would select every node"
    out["properties"]["matchExpressions"]["maxItems"] = 8
    out["properties"]["matchExpressions"]["items"]["properties"]["values"]["maxItems"] = 32
    out["properties"]["matchLabels"]["maxProperties"] = 16
    return out


def rollout_fields(rule: Rule, selector: Schema) -> Schema:
    """What updateStrategy.rollingUpdate has beyond maxUnavailable and maxSurge."""
    step = {
        "type": "object",
        "properties": {
            "nodes": amount("So many nodes, or this share of the nodes in scope, beyond the steps before"),
            "nodeSelector": label_selector(selector, "The nodes that match, beyond those of the steps before"),
            "minAvailable": amount(
                "How many of the nodes updated so far must be available before the next step (default: all)"
            ),
            "waitSeconds": {
                "description": "How long to wait after the nodes are available",
                "type": "integer",
                "format": "int32",
                "minimum": 0,
            },
            "waitForResume": {
                "description": "Wait for `nodewright rollout resume` after the nodes are available",
                "type": "boolean",
            },
        },
        "x-kubernetes-validations": [
            rule("has(self.nodes) != has(self.nodeSelector)", "must have either nodes or nodeSelector"),
        ],
    }
    return {
        "partition": amount("How many nodes keep the old template"),
        "nodeSelector": label_selector(selector, "Only nodes that match get the new template (canary)"),
        "steps": {
            "description": "Parts of the rollout, one after the other; what is left follows after the last",
            "type": "array",
            "x-kubernetes-list-type": "atomic",
            "maxItems": MANY,
            "items": step,
        },
        "maxFailed": amount("The rollout stops when new pods fail on more nodes than this"),
        "onFailure": {
            "description": "What to do then: Pause (default) or Rollback to the last template that was rolled out",
            "type": "string",
            "enum": ["Pause", "Rollback"],
        },
        "unavailablePods": {
            "description": "Old pods that are not available are replaced at once (Immediate, default) or WithinBudget",
            "type": "string",
            "enum": ["Immediate", "WithinBudget"],
        },
        "podUpdate": {
            "description": "Recreate (default), or InPlaceIfPossible: where only images changed the pod stays",
            "type": "string",
            "enum": ["Recreate", "InPlaceIfPossible"],
        },
        "prePull": {
            "description": "Pull new images on a node before its old pod goes",
            "type": "object",
            "properties": {
                "maxParallel": {
                    "description": "On how many nodes at a time",
                    "type": "integer",
                    "format": "int32",
                    "minimum": 1,
                    "default": 5,
                }
            },
        },
    }


def override_schema(selector: Schema, container: Schema) -> Schema:
    """A class of nodes on which containers have other resources or environment variables."""
    fields = container["properties"]
    own = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL},
            "resources": {**copy.deepcopy(fields["resources"]), "description": "Takes the place of the template's"},
            "env": {**copy.deepcopy(fields["env"]), "description": "Variables that are added, or replaced by name"},
        },
    }
    return {
        "description": "Classes of nodes with other resources or environment; of several that match the first counts",
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "maxItems": MANY,
        "items": {
            "type": "object",
            "required": ["name", "nodeSelector", "containers"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL},
                "nodeSelector": label_selector(selector, "The nodes of the class"),
                "containers": {
                    "description": "What is different, by name of the container or init container",
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "minItems": 1,
                    "maxItems": MANY,
                    "items": own,
                },
            },
        },
    }


def spec_fields(rule: Rule, selector: Schema, container: Schema) -> Schema:
    """What the spec has beyond apps/v1's."""
    return {
        "paused": {"description": "The rollout stands still; missing pods are still made", "type": "boolean"},
        "progressDeadlineSeconds": {
            "description": "Without progress for so long the condition Progressing turns False (default 600)",
            "type": "integer",
            "format": "int32",
            "minimum": 1,
        },
        "runOnce": {
            "description": "Pods run to their end once per node, and again for a new template",
            "type": "boolean",
        },
        "nodeDrain": {
            "description": "When its node is drained the pod stays (Stay, default) or goes last (LeaveLast)",
            "type": "string",
            "enum": ["Stay", "LeaveLast"],
        },
        "nodeOverrides": override_schema(selector, container),
        "nodeReadiness": {
            "description": "New nodes get a startup taint that goes when this DaemonSet's pod is ready there",
            "type": "object",
            "properties": {
                "effect": {
                    "description": "The effect of the taint",
                    "type": "string",
                    "enum": ["NoSchedule", "NoExecute"],
                    "default": "NoSchedule",
                },
                "after": {
                    "description": "DaemonSets ([NAMESPACE/]NAME) with nodeReadiness whose pods must be ready before",
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "maxItems": MANY,
                    "items": {"type": "string", "maxLength": 317, "pattern": DAEMONSET_NAME},
                },
            },
        },
    }


def spec_rules(rule: Rule) -> list[Schema]:
    """Rules that span fields."""
    once = "has(self.runOnce) && self.runOnce"
    policy = "(has(self.template.spec.restartPolicy) ? self.template.spec.restartPolicy : 'Always')"
    return [
        rule(
            f"({once}) || {policy} == 'Always'",
            'supported values: "Always"',
            ".template.spec.restartPolicy",
            messageExpression=f"'Unsupported value: \"' + {policy} + '\": supported values: \"Always\"'",
        ),
        rule(
            f"!({once}) || {policy} != 'Always'",
            'supported values: "Never", "OnFailure"',
            ".template.spec.restartPolicy",
            messageExpression=f'\'Unsupported value: "\' + {policy} + \'": supported values: "Never", "OnFailure"\'',
        ),
        rule(
            f"({once}) || !has(self.template.spec.activeDeadlineSeconds)",
            "activeDeadlineSeconds in DaemonSet is not Supported",
            ".template.spec.activeDeadlineSeconds",
            "FieldValueForbidden",
        ),
        rule(
            "!has(self.progressDeadlineSeconds) || !has(self.minReadySeconds)"
            " || self.progressDeadlineSeconds > self.minReadySeconds",
            "must be greater than minReadySeconds",
            ".progressDeadlineSeconds",
        ),
        rule(
            f"!({once}) || !has(self.updateStrategy.rollingUpdate) || !has(self.updateStrategy.rollingUpdate.podUpdate)"
            " || self.updateStrategy.rollingUpdate.podUpdate == 'Recreate'",
            "may not be InPlaceIfPossible when runOnce is set",
            ".updateStrategy.rollingUpdate.podUpdate",
            "FieldValueForbidden",
        ),
    ]


def status_fields() -> Schema:
    """What the status has beyond apps/v1's."""
    number = {"type": "integer", "format": "int32"}
    time = {"type": "string", "format": "date-time", "nullable": True}
    return {
        "currentRevision": {
            "description": "Hash of the last template rolled out to its end",
            "type": "string",
        },
        "updateRevision": {"description": "Hash of the newest template", "type": "string"},
        "rollout": {
            "description": "How far the rollout is",
            "type": "object",
            "properties": {
                "revision": {"description": "Hash of the template that is rolled out", "type": "string"},
                "step": {"description": "How many of the steps are done", **number},
                "stepReadyTime": {"description": "Since when the running step is available", **time},
                "progress": {"description": "The most nodes that were seen updated and available", **number},
                "lastProgressTime": {"description": "When that number grew", **time},
                "failedNodes": {"description": "Nodes on which a pod of the revision fails", **number},
                "failedRevision": {
                    "description": "Hash of the template whose failures have stopped its rollout",
                    "type": "string",
                },
                "failure": {"description": "What was wrong with its pods then", "type": "string"},
            },
        },
    }

"""Names of labels and annotations, and values of labels, with upstream's messages. Pure.

Source: apimachinery, pkg/api/validate/content/kube.go and dns.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nodewright.controllers.admission.fields import invalid, invalid_each
from nodewright.framework.webhook.review import Cause

_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_NAME}')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character "
    f"(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({_NAME})?')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_MAX_NAME = 63
_MAX_PREFIX = 253
_MAX_ANNOTATIONS = 256 * 1024  # bytes of all annotations together


def key_faults(key: str) -> list[str]:
    """Why a text is no label key; empty when it is one. Upstream: IsLabelKey."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return [
            f"a valid label key {_NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    faults: list[str] = []
    if slash and not prefix:
        faults.append("prefix part must be non-empty")
    elif slash:
        if len(prefix) > _MAX_PREFIX:
            faults.append(f"prefix part must be no more than {_MAX_PREFIX} bytes")
        if not re.fullmatch(_SUBDOMAIN, prefix):
            faults.append(f"prefix part {_SUBDOMAIN_RULE}")
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > _MAX_NAME:
        faults.append(f"name part must be no more than {_MAX_NAME} bytes")
    if not re.fullmatch(_NAME, name):
        faults.append(f"name part {_NAME_RULE}")
    return faults


def value_faults(value: str) -> list[str]:
    """Why a text is no label value; empty when it is one. Upstream: IsLabelValue."""
    faults = [f"must be no more than {_MAX_NAME} bytes"] if len(value.encode()) > _MAX_NAME else []
    if not re.fullmatch(f"({_NAME})?", value):
        faults.append(_VALUE_RULE)
    return faults


def check_key(key: Any, path: str) -> list[Cause]:
    """Faults of one label key."""
    return invalid_each(path, key, key_faults(str(key)))


def check_labels(labels: Mapping[str, Any], path: str) -> list[Cause]:
    """Faults of a map of labels; upstream reports them at the path of the map. ValidateLabels."""
    causes: list[Cause] = []
    for key, value in labels.items():
        causes += check_key(key, path)
        causes += invalid_each(path, value, value_faults(str(value)))
    return causes


def check_annotations(annotations: Mapping[str, Any], path: str) -> list[Cause]:
    """Faults of a map of annotations. ValidateAnnotations: keys in lower case, at most 256 KiB in all."""
    causes: list[Cause] = []
    size = 0
    for key, value in annotations.items():
        causes += invalid_each(path, key, key_faults(key.lower()))
        size += len(key.encode()) + len(str(value).encode())
    if size > _MAX_ANNOTATIONS:
        causes.append(
            Cause(path, f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes", "FieldValueTooLong"),
        )
    return causes


def check_selector(selector: Mapping[str, Any], path: str) -> list[Cause]:
    """Faults of a label selector that its schema cannot see. ValidateLabelSelector."""
    causes: list[Cause] = []
    for key, value in (selector.get("matchLabels") or {}).items():
        causes += check_key(key, f"{path}.matchLabels")
        causes += invalid_each(f"{path}.matchLabels", value, value_faults(str(value)))
    for index, requirement in enumerate(selector.get("matchExpressions") or []):
        causes += _check_requirement(requirement, f"{path}.matchExpressions[{index}]")
    return causes


def _check_requirement(requirement: Mapping[str, Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            text = "Required value: must be specified when `operator` is 'In' or 'NotIn'"
            causes.append(Cause(f"{path}.values", text, "FieldValueRequired"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(Cause(f"{path}.values", text, "FieldValueForbidden"))
    else:
        causes.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    causes += check_key(requirement.get("key", ""), f"{path}.key")
    for index, value in enumerate(values):
        causes += invalid_each(f"{path}.values[{index}]", value, value_faults(str(value)))
    return causes

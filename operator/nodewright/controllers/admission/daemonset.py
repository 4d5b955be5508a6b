"""Review of DaemonSets (nodewright.dev). Upstream: ValidateDaemonSetSpec, ValidateDaemonSetUpdate.

The schema of the CRD has run before us: types, enums, patterns, the selector against the template's labels, its
immutability, and the update strategy are checked there, by rules that hold without any webhook.
"""

from __future__ import annotations

from nodewright.controllers.admission import dryrun
from nodewright.controllers.admission.fields import Json, child, forbidden, invalid, not_supported, same
from nodewright.controllers.admission.labels import check_selector
from nodewright.controllers.admission.template import check_template
from nodewright.framework.webhook.review import Answer, Cause, Request
from nodewright.kube.client import Client

_TEMPLATE = "spec.template"


class DaemonSetReviewer:
    """Own rules first, all faults at once; where they find none, the API server is asked about the template."""

    def __init__(self, client: Client) -> None:
        """`client` needs the right to create Pods (it is the controllers' own)."""
        self._client = client

    async def __call__(self, request: Request) -> Answer:
        """Review a creation or a change."""
        new, old = request.new(), request.old()
        if causes := check(new, old):
            return Answer(tuple(causes))
        warnings = tuple(advise(new))
        template = child(new, "spec", "template")
        if old and same(template, child(old, "spec", "template")):
            return Answer(warnings=warnings)
        meta = child(new, "metadata")
        name = str(meta.get("name") or meta.get("generateName") or "daemonset")
        tried = await dryrun.try_template(self._client, template, name, request.namespace, _TEMPLATE)
        return Answer(tried.causes, (*warnings, *tried.warnings))


def check(new: Json, old: Json) -> list[Cause]:
    """Faults of a DaemonSet; `old` is empty for a new one. Pure."""
    spec, before = child(new, "spec"), child(old, "spec")
    causes = check_selector(child(spec, "selector"), "spec.selector")
    if old and not same(child(spec, "selector"), child(before, "selector")):
        causes.append(invalid("spec.selector", spec.get("selector"), "field is immutable"))
    causes += _check_numbers(spec)
    causes += check_template(child(spec, "template"), _TEMPLATE)
    causes += _check_life(child(spec, "template", "spec"), f"{_TEMPLATE}.spec")
    return causes


def advise(new: Json) -> list[str]:
    """Warnings about what is legal and has no effect, or hardly the one that was meant. Pure."""
    spec = child(new, "spec", "template", "spec")
    warnings: list[str] = []
    if spec.get("nodeName"):
        warnings.append(
            "spec.template.spec.nodeName: pods run on that node only; nodeSelector is what is usually meant"
        )
    if spec.get("topologySpreadConstraints"):
        warnings.append(f"{_TEMPLATE}.spec.topologySpreadConstraints: has no effect, each pod is made for one node")
    meta = child(new, "spec", "template", "metadata")
    warnings += [
        f"{_TEMPLATE}.metadata.{name}: has no effect: pods get their own"
        for name in ("name", "generateName", "namespace")
        if meta.get(name)
    ]
    return warnings


def _check_numbers(spec: Json) -> list[Cause]:
    text = "must be greater than or equal to 0"
    return [
        invalid(f"spec.{name}", value, text)
        for name in ("minReadySeconds", "revisionHistoryLimit")
        if isinstance(value := spec.get(name), int) and value < 0
    ]


def _check_life(pod: Json, path: str) -> list[Cause]:
    """DaemonSets are for Pods that run for ever."""
    causes: list[Cause] = []
    policy = pod.get("restartPolicy") or "Always"
    if policy != "Always":
        causes.append(not_supported(f"{path}.restartPolicy", policy, ["Always"]))
    if pod.get("activeDeadlineSeconds") is not None:
        text = "activeDeadlineSeconds in DaemonSet is not Supported"
        causes.append(forbidden(f"{path}.activeDeadlineSeconds", text))
    return causes

"""Review of DaemonSets (nodewright.dev). Upstream: ValidateDaemonSetSpec, ValidateDaemonSetUpdate.

The schema of the CRD has run before us: types, enums, patterns, the selector against the template's labels, its
immutability, and the update strategy are checked there, by rules that hold without any webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import msgspec

from nodewright.controllers.admission import dryrun, overrides
from nodewright.controllers.admission.fields import Json, child, forbidden, invalid, not_supported, same
from nodewright.controllers.admission.labels import check_selector
from nodewright.controllers.admission.template import check_template
from nodewright.framework.webhook.review import Answer, Cause, Request
from nodewright.kube.api.meta import LabelSelector
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import APPS_DAEMONSETS, DAEMONSETS

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
        if not old or _labels(old) != _labels(new):
            warnings += await self._overlaps(new, request.namespace)
        if old and same(_pods_of(new), _pods_of(old)):
            return Answer(warnings=warnings)
        tried = await self._try(new, request.namespace)
        return Answer(tried.causes, tuple(dict.fromkeys((*warnings, *tried.warnings))))

    async def _overlaps(self, new: Json, namespace: str) -> tuple[str, ...]:
        """Warnings about others whose selectors overlap; whatever may not be read is left out."""
        found: list[str] = []
        for resource in (DAEMONSETS, APPS_DAEMONSETS):
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(dryrun.TIMEOUT):
                    others = (await self._client.list(resource, namespace, type=dict)).items
                found += overlaps(new, others, resource.api_version, own=resource == DAEMONSETS)
        return tuple(found)

    async def _try(self, new: Json, namespace: str) -> Answer:
        """Ask about the template; where it makes a Pod, about each variant of it, too."""
        meta = child(new, "metadata")
        name = str(meta.get("name") or meta.get("generateName") or "daemonset")
        template = child(new, "spec", "template")
        plain = await dryrun.try_template(self._client, template, name, namespace, _TEMPLATE)
        if plain.causes:
            return plain
        variants = overrides.variants(new)
        answers = await asyncio.gather(
            *(dryrun.try_template(self._client, each.template, name, namespace, "") for each in variants)
        )
        causes: list[Cause] = []
        for variant, answer in zip(variants, answers, strict=True):
            causes += overrides.translated(variant, answer.causes)
        return Answer(tuple(causes), (*plain.warnings, *(text for answer in answers for text in answer.warnings)))


def check(new: Json, old: Json) -> list[Cause]:
    """Faults of a DaemonSet; `old` is empty for a new one. Pure."""
    spec, before = child(new, "spec"), child(old, "spec")
    causes = check_selector(child(spec, "selector"), "spec.selector")
    if old and not same(child(spec, "selector"), child(before, "selector")):
        causes.append(invalid("spec.selector", spec.get("selector"), "field is immutable"))
    causes += _check_numbers(spec)
    causes += check_template(child(spec, "template"), _TEMPLATE)
    causes += _check_life(child(spec, "template", "spec"), f"{_TEMPLATE}.spec", once=spec.get("runOnce") is True)
    causes += overrides.check_overrides(spec)
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
    rolling = child(new, "spec", "updateStrategy", "rollingUpdate")
    if rolling.get("podUpdate") == "InPlaceIfPossible" and rolling.get("maxSurge") not in (None, 0, "0%"):
        path = "spec.updateStrategy.rollingUpdate.podUpdate"
        warnings.append(f"{path}: has no effect with maxSurge, new pods start beside old ones")
    return warnings


def overlaps(new: Json, others: Iterable[Json], api_version: str, *, own: bool) -> list[str]:
    """Warnings about DaemonSets of which one selects the pods of the other; `own` is the new one's kind. Pure."""
    selector, labels = _selector(new), _labels(new)
    found = []
    for other in others:
        name = child(other, "metadata").get("name")
        if own and name == child(new, "metadata").get("name"):
            continue
        if selector.matches(_labels(other)) or _selector(other).matches(labels):
            found.append(
                f"spec.selector: overlaps that of DaemonSet {name} ({api_version}): pods of nobody that both select go "
                "to the older one"
            )
    return sorted(found)


def _selector(ds: Json) -> LabelSelector:
    return msgspec.convert(child(ds, "spec", "selector"), LabelSelector)


def _labels(ds: Json) -> dict[str, str]:
    return child(ds, "spec", "template", "metadata", "labels")


def _pods_of(ds: Json) -> Json:
    """What of a DaemonSet decides how its pods look."""
    spec = child(ds, "spec")
    return {"template": child(spec, "template"), "nodeOverrides": spec.get("nodeOverrides") or []}


def _check_numbers(spec: Json) -> list[Cause]:
    text = "must be greater than or equal to 0"
    return [
        invalid(f"spec.{name}", value, text)
        for name in ("minReadySeconds", "revisionHistoryLimit")
        if isinstance(value := spec.get(name), int) and value < 0
    ]


def _check_life(pod: Json, path: str, *, once: bool) -> list[Cause]:
    """DaemonSets are for Pods that run for ever, unless they are to run once."""
    causes: list[Cause] = []
    policy, possible = pod.get("restartPolicy") or "Always", ["Never", "OnFailure"] if once else ["Always"]
    if policy not in possible:
        causes.append(not_supported(f"{path}.restartPolicy", policy, possible))
    if not once and pod.get("activeDeadlineSeconds") is not None:
        text = "activeDeadlineSeconds in DaemonSet is not Supported"
        causes.append(forbidden(f"{path}.activeDeadlineSeconds", text))
    return causes

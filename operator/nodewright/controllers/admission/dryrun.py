"""Asking the API server whether it would take a Pod made from a template: all of upstream's rules, and no copy of them.

The Pod is created with dryRun=All under the operator's identity: it goes through admission and validation, and is not
stored. What the answer means:

| answer | what becomes of the object under review |
|---|---|
| the Pod is invalid (422), or no Pod at all (400) | refused, the fields of the Pod turned into those of the template |
| forbidden (quota, PodSecurity, a missing ServiceAccount, another webhook) | allowed with a warning: it may change |
| no answer in time, or a failure | allowed with a warning: the controller meets the fault later, and says so |
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from nodewright.controllers.admission.fields import Json, child
from nodewright.framework.webhook.review import Answer, Cause
from nodewright.kube.client import Client
from nodewright.kube.codec import encode
from nodewright.kube.errors import ApiError, BadRequest, Forbidden, Invalid
from nodewright.kube.resources import PODS

TIMEOUT = 4.0  # seconds; the API server waits 10 for the whole review
# How the API server begins when a body cannot be decoded into its types.
_UNDECODABLE = re.compile(r'Pod in version "v1" cannot be handled as a Pod: ')
# Fields that the dry run adds, or that say nothing about the template.
_OURS = re.compile(r"metadata\.(name|generateName|namespace)\b")


def pod_of(template: Json, name: str) -> Json:
    """The Pod that a controller named `name` would make of the template."""
    meta = child(template, "metadata")
    kept = {key: meta[key] for key in ("labels", "annotations", "finalizers") if meta.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # Names are made from the controller's, which may be as long as a Pod's: the server cuts before it adds.
        "metadata": {"generateName": f"{name}-", **kept},
        "spec": template.get("spec") or {},
    }


async def try_template(client: Client, template: Json, name: str, namespace: str, path: str) -> Answer:
    """Have the API server judge a template; `path` is where it is in the object under review. Never raises ApiError."""
    try:
        async with asyncio.timeout(TIMEOUT):
            await client.request(
                "POST", PODS.path(namespace), params={"dryRun": "All"}, body=encode(pod_of(template, name))
            )
    except TimeoutError:
        return _untried(f"no answer in {TIMEOUT:g} s")
    except ApiError as error:
        return interpret(error, path)
    return Answer()


def interpret(error: ApiError, path: str) -> Answer:
    """What the API server's refusal of the Pod says about the template at `path`. Pure."""
    if isinstance(error, Invalid):
        found = (_translated(cause, path) for cause in error.details.get("causes") or [])
        causes = tuple(cause for cause in found if cause is not None)
        return Answer(causes) if causes else Answer(warnings=(f"pods would be refused now: {error.message}",))
    if isinstance(error, BadRequest) and (match := _UNDECODABLE.search(error.message)):
        detail = error.message[match.end() :]
        return Answer((Cause(path, f"Invalid value: {detail}", "FieldValueTypeInvalid"),))
    if isinstance(error, Forbidden):
        return Answer(warnings=(f"pods would be refused now: {_short(error.message)}",))
    return _untried(_short(error.message))


def _untried(why: str) -> Answer:
    return Answer(
        warnings=(f"the pod template could not be tried on the API server, only basic checks were made: {why}",)
    )


def _translated(cause: Mapping[str, Any], path: str) -> Cause | None:
    """A cause that names a field of the Pod as one that names a field of the template; None when it is not about it."""
    field = str(cause.get("field") or "")
    if _OURS.match(field):
        return None
    return Cause(f"{path}.{field}" if field else path, str(cause.get("message")), str(cause.get("reason") or ""))


def _short(message: str) -> str:
    """Without the generated name that begins most messages: `pods "x-abc12" is forbidden: why`."""
    return re.sub(r'^pods "[^"]*" is forbidden: ', "", message)

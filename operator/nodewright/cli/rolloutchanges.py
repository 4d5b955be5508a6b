"""What the verbs of `nodewright rollout` write, and when they refuse to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import (
    PAUSED_ANNOTATION,
    RESUMED_FAILURES_ANNOTATION,
    RESUMED_STEP_ANNOTATION,
    DaemonSet,
    Revision,
)
from nodewright.controllers.daemonset.revisions import split, template_of
from nodewright.controllers.daemonset.targets import is_paused

Json = dict[str, Any]

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"


class Refused(Exception):
    """Why the verb does nothing, and what to do."""

    def __init__(self, why: str, hint: str = "") -> None:
        """`why` follows the DaemonSet's name."""
        super().__init__(why)
        self.hint = hint


def pause(kind: Kind, ds: DaemonSet) -> Json:
    """A merge patch that pauses the rollout."""
    if is_paused(ds):
        raise Refused("is already paused")
    return {"spec": {"paused": True}} if kind.extensions else {"metadata": {"annotations": {PAUSED_ANNOTATION: "true"}}}


def resume(kind: Kind, ds: DaemonSet) -> tuple[Json, list[str]]:
    """A merge patch that lets the rollout go on, whatever people can release, and what that is."""
    annotations: dict[str, str | None] = {}
    done: list[str] = []
    patch: Json = {}
    if is_paused(ds):
        done.append("it is paused no longer")
        if ds.spec.paused:
            patch["spec"] = {"paused": None}
        if PAUSED_ANNOTATION in ds.metadata.annotations:
            annotations[PAUSED_ANNOTATION] = None
    if kind.extensions and (step := waiting_step(ds)) is not None:
        annotations[RESUMED_STEP_ANNOTATION] = step
        number = step.rpartition("/")[2]
        done.append(f"step {number} of {len(ds.rolling.steps)} waits for nobody any more")
    if kind.extensions and (failed := failed_revision(ds)):
        annotations[RESUMED_FAILURES_ANNOTATION] = failed
        done.append(f"failing pods of revision {failed} stop it no longer")
    if not done:
        hint = "nodewright rollout status tells what it waits for"
        raise Refused("is not paused, and nothing in its rollout waits for somebody", hint)
    if annotations:
        patch["metadata"] = {"annotations": annotations}
    return patch, done


def waiting_step(ds: DaemonSet) -> str | None:
    """`HASH/N` of the step that is ready and waits for a person."""
    rollout, steps = ds.status.rollout, ds.rolling.steps
    if rollout is None or rollout.step >= len(steps) or not rollout.step_ready_time:
        return None
    if not steps[rollout.step].wait_for_resume:
        return None
    value = f"{rollout.revision}/{rollout.step + 1}"
    return value if ds.metadata.annotations.get(RESUMED_STEP_ANNOTATION) != value else None


def failed_revision(ds: DaemonSet) -> str:
    """The hash of the newest revision where failures have stopped its rollout; "" where they have not."""
    rollout = ds.status.rollout
    if rollout is None or not rollout.failed_revision or rollout.failed_revision != rollout.revision:
        return ""
    resumed = ds.metadata.annotations.get(RESUMED_FAILURES_ANNOTATION)
    return rollout.failed_revision if resumed != rollout.failed_revision else ""


def restart(ds: DaemonSet, now: str) -> Json:
    """A merge patch that makes a new template of the old one, as kubectl does."""
    if is_paused(ds):
        raise Refused("can't restart paused daemonset (run rollout resume first)")
    template = msgspec.json.decode(ds.spec.template)
    if ((template.get("metadata") or {}).get("annotations") or {}).get(RESTARTED_AT) == now:
        message = "if restart has already been triggered within the past second, please wait before attempting"
        raise Refused(f"{message} to trigger another")
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}}


def undo_target(ds: DaemonSet, mine: Sequence[Revision], number: int) -> Revision:
    """The revision to go back to: the one of that number, or for 0 the newest that holds another template."""
    if is_paused(ds):
        name = ds.metadata.name
        resume_first = f"resume it first with 'nodewright rollout resume {ds.metadata.namespace}/{name}' and try again"
        raise Refused(f"you cannot rollback a paused daemonset; {resume_first}")
    if number:
        found = next((revision for revision in mine if revision.revision == number), None)
        if found is None:
            raise Refused(f"unable to find specified revision {number} in history")
        return found
    old = split(ds, mine).old
    if not old:
        raise Refused("no last revision to roll back to")
    return old[-1]


def undo(ds: DaemonSet, revision: Revision) -> list[Json]:
    """A JSON patch that puts the revision's template back, refused where somebody changes the spec at the same time.

    There is no strategic merge patch for custom resources, and so the revision's own patch cannot be sent as it is. The
    generation is what the test is on: the resourceVersion changes with every status, all through a rollout.
    """
    template = template_of(revision)
    if template is None:
        raise Refused(f"revision {revision.revision} holds no pod template")
    return [
        {"op": "test", "path": "/metadata/uid", "value": ds.metadata.uid},
        {"op": "test", "path": "/metadata/generation", "value": ds.metadata.generation},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]

"""Why each node has or has not a pod of a DaemonSet, what its rollout waits for, and what would be done next. Pure.

It is made from the view and the decision that the controller acts on, so what it says is what would happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nodewright.controllers.daemonset.availability import is_available, is_ready
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.details import Trouble
from nodewright.controllers.daemonset.failures import deadline
from nodewright.controllers.daemonset.model import HASH_LABEL, Pod
from nodewright.controllers.daemonset.outside import Found, is_upstreams
from nodewright.controllers.daemonset.progress import LATE, WAITING
from nodewright.controllers.daemonset.targets import is_current, is_paused, newest
from nodewright.controllers.daemonset.view import Decision, Targets, View
from nodewright.controllers.daemonset.waits import Wait, available_at, behind, held_for_good, waits

BACK_OFF = (
    "failed pods are made anew after a back-off (1 s, doubling up to 15 min for each node) that only the controller "
    "knows: what is said of them may happen later"
)


class PodLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pod: its template (`new`, `old`, ...), how it is, and what its own status says about trouble."""

    name: str
    revision: str
    template: str
    state: str
    message: str = ""


class NodeLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node. `reason` is the same for nodes in the same situation; what differs is in `pods`."""

    node: str
    should_run: bool
    reason: str
    pods: list[PodLine] = []
    next: list[str] = []


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that the controller would do now: `create`, `delete`, `updateInPlace` or `pull` on a node."""

    action: str
    node: str
    pod: str = ""
    why: str = ""


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer. Counts are of nodes."""

    daemonset: str
    api_version: str
    strategy: str
    paused: bool
    revision: str  # hash of the current template
    number: int  # its revision number
    stable: str  # hash of what held nodes keep, and what is gone back to
    desired: int
    updated: int
    available: int
    complete: bool  # every node that is not left out for good has an available pod of the current template
    notes: list[str]
    waits: list[Wait]
    next: list[Action]
    nodes: list[NodeLine]


def explain(found: Found) -> Explanation:
    """Decide as the controller does, and tell."""
    view, guessed = found.view, set[str]()

    def failure_gate(node: str) -> float:
        guessed.add(node)
        return 0.0

    decision = decide(view, failure_gate)
    if not _is_served(view):
        decision.plan.create.clear()
        decision.plan.delete.clear()
    late = behind(view, decision.targets)
    targets = newest(view, decision.targets)
    oldest = {node: view.pods[node][0] for node in view.wanted if view.pods.get(node)}
    actions = _actions(view, decision)
    return Explanation(
        daemonset=view.ds.key,
        api_version=found.kind.resource.api_version,
        strategy=view.ds.spec.update_strategy.type,
        paused=is_paused(view.ds),
        revision=view.update.hash,
        number=view.update.revision,
        stable=decision.targets.stable,
        desired=len(view.wanted),
        updated=sum(is_current(view, targets, node, pod) for node, pod in oldest.items()),
        available=sum(is_available(view, pod) for pod in oldest.values()),
        complete=found.is_known and decision.phase != WAITING and set(late) <= held_for_good(view, decision.rollout),
        notes=_notes(found, decision, guessed),
        waits=waits(view, decision, found.troubles) if _is_served(view) else [],
        next=actions,
        nodes=_nodes(view, decision, found.troubles, actions),
    )


def _is_served(view: View) -> bool:
    """Whether the controller does anything for it at all."""
    selector = view.ds.spec.selector
    selects = bool(selector.match_labels or selector.match_expressions)
    return selects and view.ds.metadata.deletion_timestamp is None


def _notes(found: Found, decision: Decision, guessed: set[str]) -> list[str]:
    view, notes = found.view, list[str]()
    meta, status = view.ds.metadata, view.ds.status
    if meta.deletion_timestamp is not None:
        notes.append("the DaemonSet is being deleted: nothing is done for it any more")
    elif not _is_served(view):
        notes.append("This daemon set is selecting all pods. A non-empty selector is required.")
    elif not found.is_known:
        notes.append("no revision holds the current template: the controller has not seen it yet, or is not running")
    elif status.observed_generation < meta.generation:
        notes.append(f"the controller has not finished with generation {meta.generation} of the spec")
    if is_upstreams(found.kind, view.ds):
        notes.append("kube-controller-manager wrote the status last; it may do otherwise than is said here")
    if decision.phase == LATE:
        since = decision.rollout.last_progress_time
        notes.append(f"no progress since {since}: the deadline of {deadline(view.ds)} s is exceeded")
    if found.adopt:
        notes.append(f"pods without a controller that it would adopt: {', '.join(found.adopt)}")
    if found.release:
        notes.append(f"pods that its selector no longer matches, to be released: {', '.join(found.release)}")
    if guessed:
        notes.append(BACK_OFF)
    notes += [f"may not be read, and so was left out: {what}" for what in found.unread]
    if found.refusal is not None and any(not view.pods.get(node) for node in view.wanted):
        notes.append(f"the API server refused a pod last at {found.refusal.time}: {found.refusal.message}")
    return notes


# -- what comes next -------------------------------------------------------------------------------------------------


def _actions(view: View, decision: Decision) -> list[Action]:
    plan, targets = decision.plan, decision.targets
    actions = [Action("create", node, "", _why_create(view, targets, node)) for node in plan.create]
    for pod in plan.delete:
        node = pod.target_node or ""
        actions.append(Action("delete", node, pod.metadata.name, _why_delete(view, targets, node, pod)))
    for pod in plan.in_place:
        actions.append(Action("updateInPlace", pod.target_node or "", pod.metadata.name, "only images changed"))
    actions += [Action("pull", node, "", "images of the new template, before its pod goes") for node in plan.pre_pull]
    return sorted(actions, key=lambda action: action.node)


def _why_create(view: View, targets: Targets, node: str) -> str:
    wanted = targets.hash_for(node)
    which = "the current template" if wanted == view.update.hash else f"revision {wanted}"
    if any(not pod.deleting for pod in view.pods.get(node, ())):
        return f"{which}, beside the old pod"
    return which


def _why_delete(view: View, targets: Targets, node: str, pod: Pod) -> str:
    verdict = view.verdicts.get(node)
    if verdict is None:
        return "its node is gone"
    if not verdict.should_continue:
        return verdict.reason
    if pod.terminal:
        return f"it has ended ({pod.status.phase}); another one follows"
    if not is_current(view, targets, node, pod):
        return "it is not of the template that the rollout wants"
    return "one pod too many"


# -- node by node ----------------------------------------------------------------------------------------------------


def _nodes(
    view: View, decision: Decision, troubles: Mapping[str, Trouble], actions: Sequence[Action]
) -> list[NodeLine]:
    planned: dict[str, list[str]] = {}
    for action in actions:
        planned.setdefault(action.node, []).append(f"{action.action} {action.pod}".strip())
    lines = []
    for node in sorted(view.verdicts.keys() | view.pods.keys()):
        verdict = view.verdicts.get(node)
        pods = [_pod(view, decision.targets, node, pod, troubles.get(pod.key)) for pod in view.pods.get(node, ())]
        reason = _reason(view, decision, node, pods)
        lines.append(NodeLine(node, verdict is not None and verdict.should_run, reason, pods, planned.get(node, [])))
    return lines


def _reason(view: View, decision: Decision, node: str, pods: list[PodLine]) -> str:
    verdict = view.verdicts.get(node)
    if verdict is None:
        return "the node is gone, its pod is left"
    if not pods:
        if not verdict.should_run:
            return verdict.reason
        return "has no pod yet"
    what = "; ".join(dict.fromkeys(f"{pod.template}, {pod.state}" for pod in pods))
    if not verdict.should_continue:
        return f"{what}; must go: {verdict.reason}"
    if not verdict.should_run:
        return f"{what}; may stay, a new one would not come: {verdict.reason}"
    held = node in decision.targets.held and any(pod.template != "new template" for pod in pods)
    return f"{what}; held" if held else what


def _pod(view: View, targets: Targets, node: str, pod: Pod, found: Trouble | None) -> PodLine:
    hash_value = pod.metadata.labels.get(HASH_LABEL, "")
    message = found.message if found is not None and not pod.deleting else ""
    if is_ready(view, pod) and not is_available(view, pod) and (when := available_at(view, pod)):
        message = f"available at {when}"
    return PodLine(
        name=pod.metadata.name,
        revision=hash_value,
        template=_template(view, targets, node, pod, hash_value),
        state=_state(view, pod, found),
        message=message,
    )


def _template(view: View, targets: Targets, node: str, pod: Pod, hash_value: str) -> str:
    if is_current(view, newest(view, targets), node, pod):
        return "new template"
    if hash_value == view.update.hash:
        return "new template of another node class"
    known = view.revisions.get(hash_value)
    return f"old template (revision {known.revision})" if known is not None else "unknown template"


def _state(view: View, pod: Pod, found: Trouble | None) -> str:
    if pod.deleting:
        return "being deleted"
    if is_available(view, pod):
        return "available"
    if is_ready(view, pod):
        return f"ready, not yet for {view.ds.spec.min_ready_seconds} s"
    if pod.terminal:
        return pod.status.phase.lower() + (f" ({found.reason})" if found is not None else "")
    if found is not None:
        return found.reason
    return "not ready" if pod.spec.node_name else "not scheduled"

"""Which pods have to go so that a critical one can be admitted (pkg/kubelet/preemption). Pure.

As few pods as possible of as low a QoS class as possible, and of those the ones that ask for least.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodewright.kube.objects import Pod
from nodewright_agent.pods import resources
from nodewright_agent.pods.admission import Lack
from nodewright_agent.runtime.cgroup_math import QosClass

REASON, MESSAGE = "Preempting", "Preempted in order to admit critical pod"
DISRUPTION = "Pod was preempted by Kubelet to accommodate a critical pod."

_Needs = dict[str, int]
"""What has to become free, by resource."""


def preemptable(preemptor: Pod, pod: Pod) -> bool:
    """Tell whether the critical ``preemptor`` may end ``pod``: one that is not critical, or of lower priority."""
    if resources.is_critical(preemptor) and not resources.is_critical(pod):
        return True
    if preemptor.spec.priority is None or pod.spec.priority is None:
        return False
    return preemptor.spec.priority > pod.spec.priority


def victims(preemptor: Pod, pods: Iterable[Pod], lacks: Sequence[Lack]) -> list[Pod]:
    """Return the pods to end; none where all together would not free enough, or the pod is not critical."""
    needs = {lack.name: lack.amount for lack in lacks}
    if not needs or not resources.is_critical(preemptor):
        return []
    by_class: dict[QosClass, list[Pod]] = {qos: [] for qos in QosClass}
    for pod in pods:
        if preemptable(preemptor, pod):
            by_class[resources.qos_class(pod)].append(pod)
    best, burstable, guaranteed = (
        by_class[qos] for qos in (QosClass.BEST_EFFORT, QosClass.BURSTABLE, QosClass.GUARANTEED)
    )
    if _rest(needs, [*best, *burstable, *guaranteed]):
        return []
    # Each class gives only what the lower ones could not give if they were ended as a whole.
    from_guaranteed = _nearest(guaranteed, _rest(needs, [*best, *burstable]))
    from_burstable = _nearest(burstable, _rest(needs, [*best, *from_guaranteed]))
    from_best = _nearest(best, _rest(needs, [*from_burstable, *from_guaranteed]))
    return [*from_best, *from_burstable, *from_guaranteed]


def _amount(pod: Pod, name: str) -> int:
    return 1 if name == "pods" else resources.pod_request(pod, resources.reader(name))


def _rest(needs: _Needs, pods: Iterable[Pod]) -> _Needs:
    gone = list(pods)
    left = {name: need - sum(_amount(pod, name) for pod in gone) for name, need in needs.items()}
    return {name: need for name, need in left.items() if need > 0}


def _nearest(pods: Sequence[Pod], needs: _Needs) -> list[Pod]:
    """Take the pod that fulfils most of the needs, again and again; of equals the one that asks for least."""
    left, chosen = list(pods), []
    while needs and left:
        nearest = min(left, key=lambda pod: (_distance(pod, needs), _amount(pod, "memory"), _amount(pod, "cpu")))
        left.remove(nearest)
        chosen.append(nearest)
        needs = _rest(needs, [nearest])
    return chosen


def _distance(pod: Pod, needs: _Needs) -> float:
    return sum((max(0, need - _amount(pod, name)) / need) ** 2 for name, need in needs.items())

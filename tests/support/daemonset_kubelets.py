"""Kubelets of the DaemonSet lab: what they report of pods, and what they know that a test wants to know.

They pull images, start containers anew whose image was changed, end pods that run once, and do with pullers (see
`nodewright.controllers.daemonset.prepull`) what becomes of such pods.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from nodewright.controllers.daemonset.model import HASH_LABEL, PRE_PULL_OF_LABEL
from support.fake_cluster import Object


class Kubelets:
    """All nodes' kubelets. Times are RFC 3339."""

    def __init__(self) -> None:
        self.bad: set[str] = set()  # images that can't be pulled
        self.pulled: dict[str, set[str]] = defaultdict(set)  # by node
        self.runs: Counter[tuple[str, str]] = Counter()  # of pods that run once: by node and hash of the template

    def report(self, pod: Object, node: str, phase: str, now: str, *, ready: bool) -> Object:
        """The status of a pod on its node, given what it was before and what is to become of it.

        A pod that runs once succeeds with the second look at it. One whose image can't be pulled is not ready, and a
        pod with the phase Failed is as one that was evicted: of a puller nothing is reported.
        """
        if is_puller(pod):
            return {"phase": "Failed"} if phase == "Failed" else self._pull(pod, node)
        before: str = (pod.get("status") or {}).get("phase", "Pending")
        containers = self._containers(pod, node, now)
        if any("waiting" in each["state"] for each in containers) and phase != "Failed":
            phase, ready = before, False
        elif runs_once(pod) and phase != "Failed":
            self.runs[node, pod["metadata"]["labels"].get(HASH_LABEL, "")] += before == "Pending"
            phase = "Succeeded" if before == "Running" and ready else "Running"
        value = "True" if ready and phase == "Running" else "False"
        old = ((pod.get("status") or {}).get("conditions") or [{}])[0]
        since = old.get("lastTransitionTime") if old.get("status") == value else None
        if phase in ("Failed", "Succeeded"):
            containers = [{**each, "state": {}} for each in containers]
        condition = {"type": "Ready", "status": value, "lastTransitionTime": since or now}
        return {"phase": phase, "conditions": [condition], "containerStatuses": containers}

    def _containers(self, pod: Object, node: str, now: str) -> list[Object]:
        """`image` is the one that was started last; the count rises with each start but the first."""
        before = {each["name"]: each for each in (pod.get("status") or {}).get("containerStatuses") or []}
        found = []
        for container in pod["spec"].get("containers") or []:
            name, image = container["name"], container["image"]
            old = before.get(name) or {"name": name, "image": "", "restartCount": 0}
            if old["image"] == image and "running" in old["state"]:
                found.append(old)
            elif image in self.bad:
                found.append({**old, "state": _waiting("ImagePullBackOff")})
            else:
                self.pulled[node].add(image)
                count = old["restartCount"] + bool(old["image"])
                state = {"running": {"startedAt": now}}
                found.append({"name": name, "image": image, "restartCount": count, "imageID": image, "state": state})
        return found

    def _pull(self, puller: Object, node: str) -> Object:
        """First it is created, then the image is there or not, then `true` is found or not."""
        images = [each["image"] for each in puller["spec"]["containers"]]
        names = [each["name"] for each in puller["spec"]["containers"]]
        if not (puller.get("status") or {}).get("containerStatuses"):
            state = [{"name": name, "state": _waiting("ContainerCreating")} for name in names]
            return {"phase": "Pending", "containerStatuses": state}
        if self.bad.intersection(images):
            state = [{"name": name, "state": _waiting("ImagePullBackOff")} for name in names]
            return {"phase": "Pending", "containerStatuses": state}
        self.pulled[node].update(images)
        if node.endswith("1"):
            state = [{"name": name, "state": _waiting("RunContainerError")} for name in names]
            return {"phase": "Pending", "containerStatuses": state}
        state = [{"name": name, "imageID": image, "state": {}} for name, image in zip(names, images, strict=True)]
        return {"phase": "Failed" if node.endswith("2") else "Succeeded", "containerStatuses": state}


def is_puller(pod: Object) -> bool:
    return PRE_PULL_OF_LABEL in (pod["metadata"].get("labels") or {})


def runs_once(pod: Object) -> bool:
    return bool(pod["spec"].get("restartPolicy") == "Never")


def does_its_work(pod: Object) -> bool:
    """Whether a pod has run, or is ready with all its containers running the images that it has now."""
    status = pod.get("status") or {}
    if runs_once(pod):
        return bool(status.get("phase") == "Succeeded")
    images = {each["name"]: each["image"] for each in status.get("containerStatuses") or []}
    if any(images.get(each["name"]) != each["image"] for each in pod["spec"].get("containers") or []):
        return False
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or [])


def works_since(pod: Object) -> str:
    """When it became ready, or its last container was started; "" where it does not work, or that does not matter."""
    if runs_once(pod) or not does_its_work(pod):
        return ""
    status = pod["status"]
    ready = [each["lastTransitionTime"] for each in status["conditions"] if each["type"] == "Ready"]
    return max([*ready, *(each["state"]["running"]["startedAt"] for each in status["containerStatuses"])])


def _waiting(reason: str) -> Object:
    return {"waiting": {"reason": reason, "message": "why"}}

"""The rules against a small model of a cluster, under random interleavings of everything that can happen around them.

The controller sees pods' status late (any of the last states), but always its own writes: that is what the consistency
guard promises. Kubelets, people and node failures act in between.
"""

from datetime import timedelta

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.manage import allows_surge, manage
from nodewright.controllers.daemonset.model import HASH_LABEL, Template
from nodewright.controllers.daemonset.pods import group, ready_since
from nodewright.controllers.daemonset.rollout import limits
from nodewright.kube.times import format_rfc3339, parse_rfc3339, seconds_since
from support.daemonset_objects import NOW, node, pod, view

NODES = [f"n{i}" for i in range(5)]
EFFECTS = ["NoSchedule", "NoExecute"]


def is_available(pod, min_ready_seconds, now):
    """Ready for so many seconds: said once more, apart from the code."""
    since = ready_since(pod)
    return since is not None and (min_ready_seconds <= 0 or (since and seconds_since(since, now) >= min_ready_seconds))


class Cluster(RuleBasedStateMachine):
    @initialize(
        unavailable=st.integers(0, 3),
        surge=st.sampled_from([0, 0, 1, 2]),
        min_ready=st.sampled_from([0, 0, 5]),
        zones=st.lists(st.sampled_from("ab"), min_size=5, max_size=5),
    )
    def start(self, unavailable, surge, min_ready, zones):
        self.now = parse_rfc3339(NOW)
        self.rolling = RollingUpdate(0 if surge else max(1, unavailable), surge)
        self.min_ready = min_ready
        self.nodes = {name: node(name, {"zone": zone}) for name, zone in zip(NODES, zones, strict=True)}
        self.pods = {}  # name -> the truth
        self.seen = {}  # name -> what the controller's cache shows
        self.serial = 0
        self.generation = 0
        self.template = msgspec.convert({"spec": {}}, Template)
        foreign = pod("foreign", NODES[0], owner="someone-else", hash="gen0")
        self.foreign = foreign
        self.touched_foreign = False

    # -- what the world does -----------------------------------------------------------------------------------------

    @rule(data=st.data())
    def kubelet_moves_a_pod_on(self, data):
        if not self.pods:
            return
        name = data.draw(st.sampled_from(sorted(self.pods)))
        found = self.pods[name]
        if found.deleting:
            del self.pods[name]
            return
        if found.terminal:
            return
        ready = data.draw(st.booleans())
        phase = data.draw(st.sampled_from(["Running", "Running", "Running", "Failed", "Succeeded"]))
        self.pods[name] = self.changed(found, phase=phase, ready=ready and phase == "Running")

    @rule()
    def all_is_well_for_a_while(self):
        """Without calm in between, hardly any run would come as far as a rollout."""
        for _ in range(3):
            self.calm()

    def calm(self):
        for name in sorted(self.pods):
            found = self.pods[name]
            if found.deleting:
                del self.pods[name]
            elif not found.terminal:
                self.pods[name] = self.changed(found, phase="Running", ready=True)
        for name in sorted(self.pods.keys() | self.seen.keys()):
            self.observe(name)
        self.now += timedelta(seconds=6)
        self.reconcile()

    @rule(data=st.data())
    def the_cache_catches_up_with_a_pod(self, data):
        names = sorted(self.pods.keys() | self.seen.keys())
        if names:
            self.observe(data.draw(st.sampled_from(names)))

    @rule(name=st.sampled_from(NODES), effect=st.sampled_from([None, *EFFECTS]))
    def a_node_is_tainted_or_cleared(self, name, effect):
        taints = (f"dedicated=x:{effect}",) if effect else ()
        self.nodes[name] = node(name, self.nodes[name].metadata.labels if name in self.nodes else {"zone": "a"}, taints)

    @rule(name=st.sampled_from(NODES))
    def a_node_goes(self, name):
        self.nodes.pop(name, None)
        for found in list(self.pods.values()):
            if found.spec.node_name == name:  # pod garbage collection
                del self.pods[found.metadata.name]

    @rule()
    def the_template_changes(self):
        self.generation += 1

    @rule(zone=st.sampled_from([None, "a", "b"]))
    def the_node_selector_changes(self, zone):
        self.generation += 1
        spec = {"nodeSelector": {"zone": zone}} if zone else {}
        self.template = msgspec.convert({"spec": spec}, Template)

    @rule(data=st.data())
    def somebody_deletes_a_pod(self, data):
        if self.pods:
            name = data.draw(st.sampled_from(sorted(self.pods)))
            self.pods[name] = self.changed(self.pods[name], deleting=True)

    @rule(data=st.data())
    def a_double_appears(self, data):
        """A create whose answer was lost, and which was repeated."""
        name = data.draw(st.sampled_from(NODES))
        if name in self.nodes:
            self.create(name, seen=False)

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    # -- what the controller does ------------------------------------------------------------------------------------

    @rule()
    def reconcile(self):
        verdicts = {name: judge(self.template, found) for name, found in self.nodes.items()}
        rolling = {"maxUnavailable": self.rolling.max_unavailable, "maxSurge": self.rolling.max_surge}
        world = view(
            self.seen.values(),
            verdicts,
            nodes=self.nodes,
            rolling=rolling,
            hash=self.hash,
            revisions=[f"gen{i}" for i in range(self.generation)],
            minReadySeconds=self.min_ready,
            now=format_rfc3339(self.now),
        )
        before = self.running_per_node()
        decision = decide(world, lambda _node: 0.0)
        plan = decision.plan
        if manage(world, decision.targets, lambda _node: 0.0).is_empty:
            wanted = world.wanted
            lacking = sum(not self.has_available(world.pods, n) for n in wanted)
            max_unavailable, max_surge = limits(self.rolling, len(wanted))
            if max_surge == 0:
                taken = sum(is_available(p, self.min_ready, self.now) for p in plan.delete)
                assert lacking + taken <= max(lacking, max_unavailable)
        for name in plan.create:
            assert verdicts[name].should_run
            self.create(name, seen=True)
        for found in plan.delete:
            self.delete(found)
        if not allows_surge(self.rolling):
            for name in plan.create:  # never beside one that runs, as far as anyone could know
                assert before.get(name, 0) == 0 or not world.pods.get(name)
        assert len(plan.delete) == len({p.metadata.name for p in plan.delete})
        assert len(plan.create) == len(set(plan.create))

    @property
    def hash(self):
        return f"gen{self.generation}"

    def has_available(self, found, name):
        return any(is_available(p, self.min_ready, self.now) and not p.deleting for p in found.get(name, ()))

    def running_per_node(self):
        count = {}
        for found in self.seen.values():
            if not found.deleting and not found.terminal:
                count[found.target_node] = count.get(found.target_node, 0) + 1
        return count

    def create(self, name, *, seen):
        self.serial += 1
        found = pod(
            f"p{self.serial:04}", name, hash=self.hash, phase="Pending", ready=False, created=format_rfc3339(self.now)
        )
        self.pods[found.metadata.name] = found
        if seen:
            self.seen[found.metadata.name] = found

    def delete(self, found):
        name = found.metadata.name
        self.touched_foreign |= name == "foreign"
        if name in self.pods:
            self.pods[name] = self.changed(self.pods[name], deleting=True)
            self.seen[name] = self.changed(self.seen[name], deleting=True)
        else:
            self.seen.pop(name, None)

    def observe(self, name):
        if name in self.pods:
            self.seen[name] = self.pods[name]
        else:
            self.seen.pop(name, None)

    def changed(self, found, **changes):
        old_ready = any(c.status == "True" for c in found.status.conditions)
        ready = changes.get("ready", old_ready)
        since = found.status.conditions[0].last_transition_time if ready == old_ready else format_rfc3339(self.now)
        return pod(
            found.metadata.name,
            found.target_node,
            hash=found.metadata.labels[HASH_LABEL],
            phase=changes.get("phase", found.status.phase),
            ready=ready,
            since=since,
            created=found.metadata.creation_timestamp,
            deleting=changes.get("deleting", found.deleting),
        )

    # -- what must always hold ---------------------------------------------------------------------------------------

    @invariant()
    def foreign_pods_are_left_alone(self):
        assert not getattr(self, "touched_foreign", False)

    def teardown(self):
        """Left in peace, it settles: one available pod of the current template per wanted node, none elsewhere."""
        if not hasattr(self, "nodes"):
            return
        for _ in range(80):
            self.calm()
        settled = group(self.pods.values())
        for name, found in self.nodes.items():
            verdict = judge(self.template, found)
            there = settled.get(name, [])
            if verdict.should_run:
                assert [p.metadata.labels[HASH_LABEL] for p in there] == [self.hash]
                assert is_available(there[0], self.min_ready, self.now)
            elif not verdict.should_continue:
                assert there == []
            else:
                assert len(there) <= 1
        assert not (settled.keys() - self.nodes.keys())


Cluster.TestCase.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
TestInterleavings = Cluster.TestCase

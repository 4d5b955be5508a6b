"""The rollout verbs without a cluster: what they take, write, refuse and print."""

import json

import msgspec
import pytest

from nodewright.cli import rolloutchanges as changes
from nodewright.cli.daemonsettarget import Api, Target, parse
from nodewright.cli.explaindaemonsettables import print_explanation
from nodewright.cli.output import FAILED, OK, PRECONDITION, CliError
from nodewright.cli.rolloutprogress import partial_end, progress
from nodewright.cli.rollouttables import Entry, difference, entries, human_age, print_history
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.explain import explain
from nodewright.controllers.daemonset.kinds import APPS, NODEWRIGHT
from nodewright.controllers.daemonset.outside import Found, Recorded, is_upstreams
from nodewright.controllers.daemonset.revisions import holds_template
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import NOW, RUN, TEMPLATE, daemonset, pod, revision, view

BOTH = (Api.NODEWRIGHT, Api.APPS)
OURS, APPS_ONLY = (Api.NODEWRIGHT,), (Api.APPS,)


def template(image):
    return {**TEMPLATE, "spec": {"containers": [{"name": "c", "image": image}]}}


# -- which DaemonSet -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "namespace", "api", "expected"),
    [
        (["x"], None, None, Target("", "x", BOTH)),
        (["ns/x"], None, None, Target("ns", "x", BOTH)),
        (["x"], "ns", None, Target("ns", "x", BOTH)),
        (["daemonset", "ns/x"], None, None, Target("ns", "x", BOTH)),
        (["daemonset/x"], None, None, Target("", "x", BOTH)),
        (["nds/ns/x"], None, None, Target("ns", "x", OURS)),
        (["nds", "x"], "ns", None, Target("ns", "x", OURS)),
        (["daemonsets.nodewright.dev/x"], None, None, Target("", "x", OURS)),
        (["ds/x"], None, None, Target("", "x", APPS_ONLY)),
        (["ds", "ns/x"], None, None, Target("ns", "x", APPS_ONLY)),
        (["daemonset.apps/x"], None, None, Target("", "x", APPS_ONLY)),
        (["ns/x"], None, Api.APPS, Target("ns", "x", APPS_ONLY)),
        (["ds"], None, None, Target("", "ds", BOTH)),  # a name, where nothing follows
    ],
)
def test_the_ways_to_name_a_daemonset(words, namespace, api, expected):
    assert parse(words, namespace, api) == expected


@pytest.mark.parametrize(
    ("words", "namespace", "api", "message"),
    [
        (["deployment", "x"], None, None, "cannot do that with a deployment"),
        (["a/b/c"], None, None, "is not"),
        (["ds/a/b/c"], None, None, "is not"),
        (["ns/"], None, None, "is not"),
        (["ns/x"], "other", None, "two namespaces: ns and other"),
        (["ds/x"], None, Api.NODEWRIGHT, "is not of --api nodewright.dev/v1alpha1"),
    ],
)
def test_names_that_are_none(words, namespace, api, message):
    with pytest.raises(CliError, match=message) as error:
        parse(words, namespace, api)
    assert error.value.exit_code == 2


# -- pause, resume, restart ------------------------------------------------------------------------------------------

PAUSED = {"nodewright.dev/paused": "true"}


def test_each_kind_is_paused_in_its_own_way():
    assert changes.pause(NODEWRIGHT, daemonset()) == {"spec": {"paused": True}}
    assert changes.pause(APPS, daemonset()) == {"metadata": {"annotations": PAUSED}}


@pytest.mark.parametrize("paused", [{"paused": True}, {"annotations": PAUSED}])
def test_what_is_paused_is_not_paused_twice_nor_restarted_nor_undone(paused):
    ds = daemonset(**paused)
    with pytest.raises(changes.Refused, match=r"^is already paused$"):
        changes.pause(NODEWRIGHT, ds)
    with pytest.raises(changes.Refused, match=r"^can't restart paused daemonset \(run rollout resume first\)$"):
        changes.restart(ds, NOW)
    with pytest.raises(changes.Refused, match=r"^you cannot rollback a paused daemonset; resume it first with"):
        changes.undo_target(ds, [], 0)


def test_resume_takes_both_ways_back():
    patch, done = changes.resume(NODEWRIGHT, daemonset(paused=True, annotations=PAUSED))
    assert patch == {"spec": {"paused": None}, "metadata": {"annotations": {"nodewright.dev/paused": None}}}
    assert done == ["it is paused no longer"]
    patch, _ = changes.resume(APPS, daemonset(annotations=PAUSED))
    assert patch == {"metadata": {"annotations": {"nodewright.dev/paused": None}}}


def rolling_out(steps=(), annotations=None, **rollout):
    status = {"rollout": {"revision": "abc", **rollout}}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"steps": list(steps)}}
    return daemonset(updateStrategy=strategy, status=status, annotations=annotations)


WAITING = [{"nodes": 1}, {"nodes": 1, "waitForResume": True}, {"nodes": 1, "waitForResume": True}]


def test_resume_releases_the_step_that_waits():
    patch, done = changes.resume(NODEWRIGHT, rolling_out(WAITING, step=1, stepReadyTime=NOW))
    assert patch == {"metadata": {"annotations": {"nodewright.dev/resumed-step": "abc/2"}}}
    assert done == ["step 2 of 3 waits for nobody any more"]


def test_resume_releases_a_rollout_that_failures_have_stopped():
    patch, done = changes.resume(NODEWRIGHT, rolling_out(failedRevision="abc", failedNodes=2))
    assert patch == {"metadata": {"annotations": {"nodewright.dev/resumed-failures": "abc"}}}
    assert done == ["failing pods of revision abc stop it no longer"]


@pytest.mark.parametrize(
    "ds",
    [
        daemonset(),
        rolling_out(WAITING, step=1),  # waits for its pods
        rolling_out(WAITING, step=0, stepReadyTime=NOW),  # waits for time
        rolling_out(WAITING, step=3),
        rolling_out(WAITING, step=1, stepReadyTime=NOW, annotations={"nodewright.dev/resumed-step": "abc/2"}),
        rolling_out(failedRevision="earlier"),
        rolling_out(failedRevision="abc", annotations={"nodewright.dev/resumed-failures": "abc"}),
    ],
)
def test_nothing_to_resume_is_an_error(ds):
    with pytest.raises(changes.Refused, match=r"^is not paused, and nothing"):
        changes.resume(NODEWRIGHT, ds)


def test_restart_is_kubectls():
    annotation = {"kubectl.kubernetes.io/restartedAt": NOW}
    assert changes.restart(daemonset(), NOW) == {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    with pytest.raises(changes.Refused, match="within the past second"):
        changes.restart(daemonset({**TEMPLATE, "metadata": {"annotations": annotation}}), NOW)


@pytest.mark.parametrize(
    ("kind", "writers", "expected"),
    [
        (APPS, {"kube-controller-manager": "2026-03-01T11:00:00Z"}, True),
        (APPS, {"kube-controller-manager": "2026-03-01T11:00:00Z", "nodewright-operator": NOW}, False),
        (APPS, {}, False),
        (NODEWRIGHT, {"kube-controller-manager": NOW}, False),
    ],
)
def test_whose_status_it_is(kind, writers, expected):
    fields = [{"manager": name, "subresource": "status", "time": time} for name, time in writers.items()]
    raw = json.loads(msgspec.json.encode(daemonset()))
    raw["metadata"]["managedFields"] = fields
    ds = msgspec.json.decode(json.dumps(raw), type=type(daemonset()))
    assert is_upstreams(kind, ds) is expected


# -- undo and history ------------------------------------------------------------------------------------------------


def test_undo_goes_to_the_newest_other_template():
    ds = daemonset(template("v3"))
    mine = [revision(f"r{n}", template(f"v{n}"), number=n) for n in (1, 2, 3)]
    assert changes.undo_target(ds, mine, 0).revision == 2
    assert changes.undo_target(ds, mine, 1).revision == 1
    # the controller has not seen today's template yet: the newest revision is the one before it
    assert changes.undo_target(daemonset(template("v4")), mine, 0).revision == 3


def test_undo_where_there_is_nothing_to_go_back_to():
    ds = daemonset(template("v1"))
    mine = [revision("r1", template("v1"))]
    with pytest.raises(changes.Refused, match=r"^no last revision to roll back to$"):
        changes.undo_target(ds, mine, 0)
    with pytest.raises(changes.Refused, match=r"^unable to find specified revision 7 in history$"):
        changes.undo_target(ds, mine, 7)
    assert holds_template(ds, mine[0])


def test_undo_replaces_the_template_of_the_very_spec_that_was_read():
    patch = changes.undo(daemonset(template("v2")), revision("r1", template("v1")))
    assert patch == [
        {"op": "test", "path": "/metadata/uid", "value": "uid"},
        {"op": "test", "path": "/metadata/generation", "value": 1},
        {"op": "replace", "path": "/spec/template", "value": template("v1")},
    ]
    with pytest.raises(changes.Refused, match="holds no pod template"):
        changes.undo(daemonset(), revision("bad", data={"spec": {}}))


def test_history_marks_what_was_rolled_out_and_what_is_wanted():
    ds = daemonset(template("v2"), status={"currentRevision": "h1"})
    recorded = [
        Recorded(revision("r1", template("v1"), number=1, hash="h1"), "first"),
        Recorded(revision("r2", {**template("v2"), "x": None}, number=2, hash="h2"), ""),
    ]
    found = entries(ds, recorded, [pod("a", hash="h1"), pod("b", hash="h1"), pod("c", hash="h2")])
    assert [(e.revision, e.change_cause, e.images, e.pods, e.current, e.update) for e in found] == [
        (1, "first", ["v1"], 2, True, False),
        (2, "", ["v2"], 1, False, True),
    ]


def test_the_table_of_revisions(capsys):
    entry = Entry(3, "", "h3", "2026-03-01T11:00:00Z", ["a", "b", "c", "d"], 2, True, True)
    print_history("daemonset.apps/x", [entry], parse_rfc3339(NOW))
    title, head, row = capsys.readouterr().out.splitlines()
    assert title == "daemonset.apps/x"
    assert head.split() == ["REVISION", "CHANGE-CAUSE", "HASH", "AGE", "IMAGES", "PODS"]
    assert row.split() == ["3", "<none>", "h3", "60m", "a,b,c", "and", "1", "more", "2", "current,", "update"]


def test_the_difference_is_one_of_meaning():
    assert (
        difference(template("v1"), {**template("v1"), "metadata": TEMPLATE["metadata"] | {"x": None}}, "a", "b") == ""
    )
    assert "-  - name: c\n" not in (text := difference(template("v1"), template("v2"), "a", "b"))
    assert "-    image: v1\n+    image: v2\n" in text.replace("  - image", "    image")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")]
)
def test_ages(seconds, text):
    assert human_age(seconds) == text


# -- status ----------------------------------------------------------------------------------------------------------


def state(updated=3, available=3, observed=1, conditions=(), rollout=None, **more):
    status = {
        "observedGeneration": observed,
        "desiredNumberScheduled": 3,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "conditions": [{"type": type_, "status": "False", "reason": reason} for type_, reason in conditions],
        "rollout": rollout,
    }
    return progress(daemonset(status=status, **more))


def test_kubectls_words():
    assert state() == progress_of('daemon set "ds" successfully rolled out', OK)
    waiting = 'Waiting for daemon set "ds" rollout to finish:'
    assert state(updated=1) == progress_of(f"{waiting} 1 out of 3 new pods have been updated...")
    assert state(available=2) == progress_of(f"{waiting} 2 of 3 updated pods are available...")
    assert state(observed=0) == progress_of("Waiting for daemon set spec update to be observed...")
    with pytest.raises(CliError, match=r"^rollout status is only available for RollingUpdate strategy type$"):
        state(updateStrategy={"type": "OnDelete"})


def progress_of(message, code=None):
    return type(state())(message, code)


def test_a_paused_rollout_has_come_to_an_end_for_now():
    found = state(updated=1, paused=True)
    assert (found.code, "is paused: 1 out of 3 new pods" in found.message) == (PRECONDITION, True)
    assert state(updated=1, annotations=PAUSED).code == PRECONDITION
    assert state(paused=True).code == OK


@pytest.mark.parametrize(("policy", "words"), [("Pause", "has stopped"), ("Rollback", "is rolled back")])
def test_a_rollout_that_failed(policy, words):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"onFailure": policy}}
    rollout = {"revision": "abc", "failedRevision": "abc", "failure": "2 of 3 nodes: why"}
    found = state(updated=1, rollout=rollout, updateStrategy=strategy)
    assert found == progress_of(
        f'daemon set "ds" rollout {words}: new pods of revision abc failed on 2 of 3 nodes: why', FAILED
    )


def test_a_rollout_that_takes_too_long():
    found = state(updated=1, conditions=[("Progressing", "ProgressDeadlineExceeded")])
    assert found == progress_of('daemon set "ds" exceeded its progress deadline', FAILED)
    assert state(conditions=[("Progressing", "ProgressDeadlineExceeded")]).code == OK


def test_a_last_step_that_waits_is_part_of_the_rollout():
    found = state(conditions=[("Progressing", "WaitingForStep")])
    assert found == progress_of('Waiting for daemon set "ds" rollout to finish: all 3 new pods are available...')


def test_a_rollout_that_leaves_nodes_out_ends_without_them():
    rolling, status = {"partition": 1}, {"currentRevision": "old", "updatedNumberScheduled": 1}
    pods = [pod("a", "n1"), pod("b", "n2", hash="old")]
    seen = view(pods, rolling=rolling, status=status)
    end = 'daemon set "ds" partitioned roll out complete: 1 new pods have been updated...'
    assert partial_end(seen.ds, explain(Found(NODEWRIGHT, seen, True))) == end
    held = [("Progressing", "RolloutHeld")]
    assert state(updated=1, conditions=held) == progress_of(end, OK)  # without a look at the pods
    starting = view([pod("a", "n1", ready=False), pods[1]], rolling=rolling, status=status)
    assert partial_end(starting.ds, explain(Found(NODEWRIGHT, starting, True))) == ""
    missing = view(pods[:1], {"n1": RUN, "n2": RUN}, rolling=rolling, status=status)
    assert partial_end(missing.ds, explain(Found(NODEWRIGHT, missing, True))) == ""


# -- the tables of explain daemonset ---------------------------------------------------------------------------------


def big():
    no = Verdict(False, False, "node selector disk=ssd does not match")
    tainted = Verdict(False, False, "untolerated taint a:NoSchedule")
    verdicts = {f"n{i:02}": no for i in range(37)} | {"x1": RUN, "x2": RUN, "y": tainted}
    return explain(Found(NODEWRIGHT, view([pod("a", "x1", ready=False), pod("b", "x2", hash="old")], verdicts), True))


def test_nodes_in_the_same_situation_share_a_row(capsys):
    print_explanation(big(), False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "DaemonSet ns/ds (nodewright.dev/v1alpha1): RollingUpdate, revision 2 (new)"
    waits = "waits: old pods wait their turn on 1 node (x2): maxUnavailable 1 is used up by x1"
    assert any(line.startswith(waits) for line in lines)
    (row,) = [line for line in lines if "disk=ssd" in line]
    assert " ".join(row.split()) == "37 n00, n01, n02 and 34 more node selector disk=ssd does not match"
    assert lines.index(row) == len(lines) - 2  # the largest group of those that get none; they come last
    assert max(map(len, lines)) <= 120


def test_all_lists_every_node(capsys):
    print_explanation(big(), True)
    out = capsys.readouterr().out
    assert out.count("node selector disk=ssd does not match") == 37
    assert "x2     b     old template (revision 1), available" in out

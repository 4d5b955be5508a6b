import msgspec
import pytest

from nodewright.controllers.admission import dryrun
from nodewright.controllers.admission.daemonset import DaemonSetReviewer, advise, check
from nodewright.framework.webhook.review import GroupVersionKind, Request
from nodewright.kube.client import ObjectList
from nodewright.kube.errors import BadRequest, Forbidden, Invalid, ServerUnavailable
from support.bad_templates import BAD, template


def daemonset(pod_template, **spec):
    return {
        "metadata": {"name": "x"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pod_template, **spec},
    }


def texts(causes):
    return [str(cause) for cause in causes]


@pytest.mark.parametrize(("pod_template", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_one_fault_gives_what_upstream_says(pod_template, expected):
    assert texts(check(daemonset(pod_template), {})) == expected


def test_a_good_one_has_no_faults():
    good = template(
        container={
            "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
            "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}],
            "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1.5Gi"}},
        },
        initContainers=[{"name": "first", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}],
        volumes=[{"name": "v", "emptyDir": {}}],
        tolerations=[{"operator": "Exists"}, {"key": "a", "value": "b"}, {"key": "a", "operator": "Gt", "value": "-5"}],
        nodeSelector={"kubernetes.io/os": "linux"},
    )
    assert check(daemonset(good), {}) == []
    assert advise(daemonset(good)) == []


def test_all_faults_are_told_at_once():
    bad = template(container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, nodeSelector={"a b": ""})
    assert len(check(daemonset(bad, minReadySeconds=-1), {})) == 3


def test_numbers_and_selectors():
    ds = daemonset(template(), minReadySeconds=-1, revisionHistoryLimit=-2)
    assert texts(check(ds, {})) == [
        "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
        "spec.revisionHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
    ]
    other = daemonset(template())
    other["spec"]["selector"] = {"matchLabels": {"app": "y"}}
    (only,) = texts(check(other, daemonset(template())))
    assert only == 'spec.selector: Invalid value: {"matchLabels":{"app":"y"}}: field is immutable'


def test_what_has_no_effect_is_told():
    ds = daemonset(template(meta={"name": "n"}, nodeName="n1", topologySpreadConstraints=[{"maxSkew": 1}]))
    assert [w.partition(":")[0] for w in advise(ds)] == [
        "spec.template.spec.nodeName",
        "spec.template.spec.topologySpreadConstraints",
        "spec.template.metadata.name",
    ]


@pytest.mark.parametrize(
    "broken", [{}, {"spec": None}, {"spec": {"template": []}}, {"spec": {"template": {"spec": 1}}}]
)
def test_objects_of_any_shape_do_not_break_the_rules(broken):
    assert isinstance(check(broken, {}), list)


class Api:
    """Answers dry runs; keeps what it was asked."""

    def __init__(self, error=None):
        self.error = error
        self.asked = []

    async def request(self, method, path, *, params, body):
        self.asked.append((method, path, params, msgspec.json.decode(body)))
        if self.error is not None:
            raise self.error
        return b"{}"

    async def list(self, *_args, **_more):
        return ObjectList([], "1")


def request(new, old=None):
    kind = GroupVersionKind("nodewright.dev", "v1alpha1", "DaemonSet")
    raw = [msgspec.Raw(msgspec.json.encode(o)) for o in (new, old)]
    return Request("u", kind, "UPDATE" if old else "CREATE", "x", "ns", *raw)


async def test_the_template_is_tried_as_a_pod():
    api = Api()
    meta = {"annotations": {"a": "b"}, "finalizers": ["f"], "name": "ignored"}
    assert not (await DaemonSetReviewer(api)(request(daemonset(template(meta=meta))))).causes
    ((method, path, params, pod),) = api.asked
    assert (method, path, params) == ("POST", "/api/v1/namespaces/ns/pods", {"dryRun": "All"})
    assert pod["metadata"] == {
        "generateName": "x-",
        "labels": {"app": "x"},
        "annotations": {"a": "b"},
        "finalizers": ["f"],
    }
    assert pod["spec"] == template()["spec"]


async def test_nothing_is_tried_for_a_known_fault_or_an_unchanged_template():
    api = Api()
    reviewer = DaemonSetReviewer(api)
    assert (await reviewer(request(daemonset(template(restartPolicy="Never"))))).causes
    old = daemonset({"spec": template()["spec"], "metadata": template()["metadata"]}, minReadySeconds=1)
    assert not (await reviewer(request(daemonset(template()), old))).causes
    assert api.asked == []


def invalid(*causes):
    details = {"causes": [{"field": f, "message": m, "reason": "R"} for f, m in causes]}
    return Invalid(422, "Invalid", 'Pod "x-abcde" is invalid', details)


async def test_faults_of_the_pod_become_faults_of_the_template():
    api = Api(invalid(("spec.containers[0].image", "Required value"), ("metadata.generateName", "too long")))
    answer = await DaemonSetReviewer(api)(request(daemonset(template())))
    assert texts(answer.causes) == ["spec.template.spec.containers[0].image: Required value"]
    only_ours = dryrun.interpret(invalid(("metadata.name", "bad")), "spec.template")
    assert not only_ours.causes
    assert only_ours.warnings


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        (
            Forbidden(403, "Forbidden", 'pods "x-abc" is forbidden: exceeded quota'),
            "pods would be refused now: exceeded",
        ),
        (ServerUnavailable(0, "Timeout", "no answer"), "the pod template could not be tried"),
        (BadRequest(400, "BadRequest", 'admission webhook "w" does not support dry run'), "does not support dry run"),
    ],
)
def test_what_says_nothing_about_the_template_is_a_warning(error, warning):
    answer = dryrun.interpret(error, "spec.template")
    assert not answer.causes
    assert warning in answer.warnings[0]


def test_a_template_that_is_no_pod_is_refused():
    text = 'Pod in version "v1" cannot be handled as a Pod: quantities must match'
    (cause,) = dryrun.interpret(BadRequest(400, "BadRequest", text), "spec.template").causes
    assert str(cause) == "spec.template: Invalid value: quantities must match"


async def test_a_slow_api_server_is_not_waited_for(monkeypatch):
    class Slow(Api):
        async def request(self, *_args, **_more):
            import asyncio

            await asyncio.sleep(30)

    monkeypatch.setattr(dryrun, "TIMEOUT", 0.05)
    answer = await DaemonSetReviewer(Slow())(request(daemonset(template())))
    assert not answer.causes
    assert "no answer in 0.05 s" in answer.warnings[0]


def sized(*containers, name="big", selector=None, **spec):
    override = {
        "name": name,
        "nodeSelector": selector or {"matchLabels": {"size": "big"}},
        "containers": list(containers),
    }
    limited = template(
        container={"resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "A", "value": "1"}]},
        initContainers=[{"name": "first", "image": "i"}],
    )
    return daemonset(limited, nodeOverrides=[override], **spec)


def named(**more):
    return {"name": template()["spec"]["containers"][0]["name"], **more}


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (sized(named(env=[{"name": "B", "value": "2"}]), {"name": "first"}), []),
        (sized(named(), {"name": "x"}), ['spec.nodeOverrides[0].containers[1].name: Not found: "x"']),
        (
            sized(named(resources={"requests": {"memory": "2Gi"}})),  # above the template's limit
            [
                'spec.nodeOverrides[0].containers[0].resources.requests: Invalid value: "2Gi": '
                "must be less than or equal to memory limit of 1Gi"
            ],
        ),
        (sized(named(resources={"requests": {"memory": "2Gi"}, "limits": {}})), []),
        (
            sized(named(resources={"limits": {"cpu": "-1"}})),
            [
                'spec.nodeOverrides[0].containers[0].resources.limits[cpu]: Invalid value: "-1": '
                "must be greater than or equal to 0"
            ],
        ),
        (
            sized(named(), selector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            [
                "spec.nodeOverrides[0].nodeSelector.matchExpressions[0].values: Required value: "
                "must be specified when `operator` is 'In' or 'NotIn'"
            ],
        ),
    ],
)
def test_overrides(ds, expected):
    assert texts(check(ds, {})) == expected


async def test_each_override_is_tried_as_a_pod_and_its_faults_are_told_where_they_are_written():
    class Picky(Api):
        async def request(self, method, path, *, params, body):
            await super().request(method, path, params=params, body=body)
            env = self.asked[-1][3]["spec"]["containers"][0]["env"]
            if len(env) > 1:
                raise invalid(
                    ("spec.containers[0].env[1].name", "bad name"),
                    ("spec.containers[0].env[0].name", "another bad name"),
                    ("spec.containers[0].resources.limits[cpu]", "bad amount"),
                    ("spec.containers[7].name", "of another webhook's container"),
                    ("spec.nodeName", "elsewhere"),
                )
            return b"{}"

    api = Picky()
    answer = await DaemonSetReviewer(api)(request(sized(named(env=[{"name": "B", "value": "2"}]))))
    assert len(api.asked) == 2
    assert api.asked[1][3]["metadata"]["annotations"].keys() == {"nodewright.dev/node-class"}
    where = "spec.nodeOverrides[0]"
    assert texts(answer.causes) == [
        f"{where}.containers[0].env[0].name: bad name",
        f"{where}: spec.containers[0].env[0].name: another bad name",
        f"{where}.containers[0].resources.limits[cpu]: bad amount",
        f"{where}: spec.containers[7].name: of another webhook's container",
        f"{where}: spec.nodeName: elsewhere",
    ]


async def test_overrides_that_change_are_tried_and_others_are_not():
    api = Api()
    first, second = sized(named()), sized(named(env=[{"name": "B", "value": "2"}]))
    await DaemonSetReviewer(api)(request(second, first))
    assert len(api.asked) == 2
    await DaemonSetReviewer(api)(request({**first, "metadata": {"name": "x", "labels": {"a": "b"}}}, first))
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("policy", "once", "supported"),
    [
        ("Always", False, None),
        ("OnFailure", False, '"Always"'),
        ("Never", True, None),
        ("OnFailure", True, None),
        ("Always", True, '"Never", "OnFailure"'),
        ("", True, '"Never", "OnFailure"'),
    ],
)
def test_pods_that_run_once_have_an_end(policy, once, supported):
    ds = daemonset(template(restartPolicy=policy, activeDeadlineSeconds=9 if once else None), runOnce=once)
    expected = f'Unsupported value: "{policy or "Always"}": supported values: {supported}'
    assert texts(check(ds, {})) == ([f"spec.template.spec.restartPolicy: {expected}"] if supported else [])


def test_an_update_in_place_while_surging_is_told_to_have_no_effect():
    def advice(**rolling):
        return advise(daemonset(template(), updateStrategy={"rollingUpdate": rolling}))

    assert advice(podUpdate="InPlaceIfPossible") == []
    assert advice(podUpdate="InPlaceIfPossible", maxSurge="0%") == []
    (text,) = advice(podUpdate="InPlaceIfPossible", maxSurge=1)
    assert text.startswith("spec.updateStrategy.rollingUpdate.podUpdate: has no effect with maxSurge")

import msgspec
import pytest

from nodewright.framework.webhook import review
from nodewright.framework.webhook.review import Answer, Cause, MalformedReview


def body(**changes):
    request = {
        "uid": "u1",
        "kind": {"group": "nodewright.dev", "version": "v1alpha1", "kind": "DaemonSet"},
        "operation": "UPDATE",
        "name": "x",
        "namespace": "ns",
        "object": {"a": 1},
        "oldObject": {"a": 0},
        "userInfo": {"username": "me"},
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request | changes}
    return msgspec.json.encode(whole)


def test_reading():
    request = review.decode(body())
    assert (request.uid, request.operation, request.name, request.namespace) == ("u1", "UPDATE", "x", "ns")
    assert request.new() == {"a": 1}
    assert request.old() == {"a": 0}
    assert review.decode(body(oldObject=None)).old() == {}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not an AdmissionReview"),
        (b"nonsense", "not an AdmissionReview"),
        (b"[]", "not an AdmissionReview"),
        (b"\xff\xfe", "not an AdmissionReview"),
        (b"[" * 100_000, "not an AdmissionReview"),
        (b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}', "expected admission.k8s.io/v1"),
        (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', "no request"),
        (body(uid=""), "no request with a uid"),
        (body(kind="DaemonSet"), "not an AdmissionReview"),
    ],
)
def test_malformed_bodies(data, text):
    with pytest.raises(MalformedReview, match=text):
        review.decode(data)


def test_an_object_that_is_none():
    with pytest.raises(MalformedReview, match="not a JSON object"):
        review.decode(body(object=[1])).new()


def answer(*causes, warnings=()):
    return msgspec.json.decode(review.encode(review.decode(body()), Answer(causes, warnings)))


def test_allowed():
    assert answer() == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "u1", "allowed": True},
    }


def test_denied_as_the_api_server_denies():
    response = answer(Cause("spec.a", "Required value", "FieldValueRequired"), Cause("spec.b", "Not found"))["response"]
    assert response["allowed"] is False
    status = response["status"]
    assert (status["code"], status["reason"], status["status"]) == (422, "Invalid", "Failure")
    assert status["message"] == ('DaemonSet.nodewright.dev "x" is invalid: [spec.a: Required value, spec.b: Not found]')
    assert status["details"]["kind"] == "DaemonSet"
    assert status["details"]["causes"][0] == {
        "reason": "FieldValueRequired",
        "message": "Required value",
        "field": "spec.a",
    }


def test_long_texts_are_cut():
    response = answer(Cause("f", "m" * 20_000), warnings=["w" * 1000] * 40)["response"]
    assert len(response["status"]["message"]) == review.MAX_MESSAGE
    assert len(response["warnings"]) == review.MAX_WARNINGS
    assert len(response["warnings"][0]) == review.MAX_WARNING

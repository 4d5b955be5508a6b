"""The comparison can fail, each part of it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import msgspec
import pytest

from differential.daemonsets.steps import Case
from differential.daemonsets.table import AT_ONCE, MORE, PLAIN, V2
from nodewright.controllers.daemonset import actions, eligibility, revisions, rollout, status, template

pytestmark = pytest.mark.timeout(3600)


def wrong_tolerations(host_network: bool) -> list[Any]:
    return eligibility.default_tolerations(host_network)[1:]


counted_right = status.compute


def wrong_status(*arguments: Any) -> Any:
    counted = counted_right(*arguments)
    counted.number_misscheduled += 1
    return counted


def wrong_limits(*_: Any) -> tuple[int, int]:
    return 2, 0


def wrong_form(data: Any) -> bytes:
    return msgspec.json.encode(data)


WRONG = {
    "a Pod's spec": (mock.patch.object(template, "default_tolerations", wrong_tolerations), r"-.*not-ready"),
    "the status": (mock.patch.object(status, "compute", wrong_status), r'\+ +"numberMisscheduled": 1'),
    "a rollout": (mock.patch.object(rollout, "limits", wrong_limits), r'(?s)"nodes".*revision 2'),
    "a revision": (mock.patch.object(revisions, "stored_form", wrong_form), r'\+ .*"data"'),
    "an event": (mock.patch.object(actions, "BURST", 0), r"-.*SuccessfulCreate"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_difference_is_seen(daemonset_lab, monkeypatch, what):
    patch, message = WRONG[what]
    monkeypatch.setattr("differential.daemonsets.lab.PATIENCE", 1.0)
    with patch, pytest.raises(AssertionError, match=message):
        daemonset_lab.runner.run(daemonset_lab.hold(Case(PLAIN, {}, [MORE, V2])))


def test_agreement(daemonset_lab):
    daemonset_lab.runner.run(daemonset_lab.hold(Case(PLAIN, AT_ONCE, [MORE, V2, MORE])))

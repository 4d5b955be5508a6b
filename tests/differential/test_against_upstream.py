"""Our scheduler and kube-scheduler are asked about the same Pods in the same clusters, and must say the same."""

from __future__ import annotations

import os

import pytest
from differential.cases import Case, cases
from differential.lab import Lab
from differential.session import hold
from hypothesis import HealthCheck, given, settings

from differential.profiles import default_profile

# The same cases in every run, unless more are asked for than usual.
USUAL = 40
CASES = int(os.environ.get("NODEWRIGHT_DIFFERENTIAL_CASES", USUAL))


@pytest.mark.timeout(7200)
@settings(
    max_examples=CASES,
    derandomize=CASES == USUAL,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_same_answers(lab: Lab, case: Case):
    hold(lab, case, default_profile())

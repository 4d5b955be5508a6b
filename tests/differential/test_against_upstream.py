"""Our scheduler and kube-scheduler are asked about the same Pods in the same clusters, and must say the same.

NODEWRIGHT_DIFFERENTIAL_CASES asks for so many cases in each test, other ones in every run; without it, they are few and
always the same.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from differential.cases import Case, cases
from differential.lab import Lab
from differential.podspecs import PREEMPTION
from differential.profiles import make_profile
from differential.session import hold

WANTED = os.environ.get("NODEWRIGHT_DIFFERENTIAL_CASES")
CASES = int(WANTED or 60)

alike = settings(
    max_examples=CASES,
    derandomize=WANTED is None,
    print_blob=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
# The binary may have to be built first, and what fails is made smaller for minutes.
pytestmark = pytest.mark.timeout(3600 + 5 * CASES)


@alike
@given(case=cases())
def test_same_answers(lab: Lab, case: Case):
    hold(lab, case, make_profile())


@alike
@given(case=cases(about=PREEMPTION))
def test_same_victims(lab: Lab, case: Case):
    hold(lab, case, make_profile())

"""Both controllers get the same inputs, and must make the same of them.

NODEWRIGHT_DIFFERENTIAL_CASES asks for a tenth as many random cases (one takes seconds), other ones in every run;
without it, they are few and always the same.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from differential.daemonsets.cases import cases
from differential.daemonsets.table import CASES

WANTED = os.environ.get("NODEWRIGHT_DIFFERENTIAL_CASES")
COUNT = -(-int(WANTED or 200) // 10)
pytestmark = pytest.mark.timeout(3600 + 20 * COUNT)


@pytest.mark.parametrize("name", CASES)
def test_known_cases(daemonset_lab, name):
    daemonset_lab.runner.run(daemonset_lab.hold(CASES[name]))


@settings(
    max_examples=COUNT,
    derandomize=WANTED is None,
    print_blob=True,
    database=None,
    deadline=None,
    # A case takes seconds, and a difference its full patience: what fails is shown as it was found.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(case=cases())
def test_random_cases(daemonset_lab, case):
    daemonset_lab.runner.run(daemonset_lab.hold(case))

"""What tests of the real controller on the fake API server share."""

import pytest

from support.daemonset_lab import Lab
from support.daemonset_objects import ZONES


@pytest.fixture
def make_lab():
    made = []

    def make(kind=Lab, **spec):
        made.append(kind(ZONES, **spec))
        return made[-1]

    yield make
    for lab in made:
        lab.close()

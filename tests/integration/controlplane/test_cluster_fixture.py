from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.needs_cluster


def test_namespace_has_a_service_account_and_our_kinds_are_served(kubectl: Callable[..., str], namespace: str) -> None:
    assert "default" in kubectl("get", "serviceaccount", "-n", namespace, "-o", "name")
    assert kubectl("get", "daemonsets.nodewright.dev", "-n", namespace, "-o", "name") == ""

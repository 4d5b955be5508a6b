import pytest

from nodewright.cli.main import main
from nodewright.kube import logs
from nodewright.scheduler import process


@pytest.fixture
def asked(monkeypatch):
    """The options that the process would run with."""
    found = []
    monkeypatch.setattr(process, "run", found.append)
    monkeypatch.setattr(logs, "setup", lambda level: None)
    return found


def test_times_of_the_lease_are_upstreams_unless_told_otherwise(asked):
    assert main(["scheduler"]) == 0
    flags = ["--leader-elect-lease-duration=1m", "--leader-elect-renew-deadline=40s", "--leader-elect-retry-period=1s"]
    names = ["--leader-elect-resource-namespace=here", "--leader-elect-resource-name=mine"]
    assert main(["scheduler", *flags, *names]) == 0
    times = [(o.lease_duration, o.renew_deadline, o.retry_period, o.lease_namespace, o.lease_name) for o in asked]
    assert times == [(15, 10, 2, "kube-system", "nodewright-scheduler"), (60, 40, 1, "here", "mine")]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--leader-elect-lease-duration=10s", "must be longer than the renew deadline"),
        ("--leader-elect-retry-period=10s", "longer than the retry period"),
        ("--leader-elect-lease-duration=soon", "not a duration"),
    ],
)
def test_times_that_make_no_sense_are_refused(asked, capsys, flag, message):
    assert main(["scheduler", flag]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not asked

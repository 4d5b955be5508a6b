import pytest

from nodewright.cli import webhook
from nodewright.cli.output import USAGE, CliError
from nodewright.framework.webhook.options import WebhookOptions

GOOD = {"bind": ":9443", "service": "ns/hook", "configuration": "nodewright", "secret": "hook-tls"}


def test_off_by_default():
    assert webhook.options("", "", "", "") is None


def test_all_together():
    found = webhook.options(**GOOD)
    assert found == WebhookOptions(
        host="0.0.0.0", port=9443, service=("ns", "hook"), configuration="nodewright", secret="hook-tls"
    )
    assert found.names() == ("hook.ns.svc", "hook.ns.svc.cluster.local")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"secret": ""}, "--webhook-bind needs --webhook-secret too"),
        ({"bind": "", "service": "", "secret": ""}, "--webhook-configuration needs --webhook-bind, --webhook-service"),
        ({"bind": "9443"}, "--webhook-bind '9443' is not ADDR:PORT"),
        ({"bind": ":99999"}, "--webhook-bind ':99999' is not ADDR:PORT"),
        ({"service": "hook"}, "--webhook-service 'hook' is not NS/NAME"),
        ({"service": "a/b/c"}, "--webhook-service 'a/b/c' is not NS/NAME"),
        ({"service": "Ns/hook"}, "is not NS/NAME"),
        ({"configuration": "A"}, "--webhook-configuration 'A' is not an object name"),
        ({"secret": "../x"}, "--webhook-secret '../x' is not an object name"),
    ],
)
def test_bad_combinations_are_refused_with_a_hint(changes, text):
    with pytest.raises(CliError) as refused:
        webhook.options(**{**GOOD, **changes})
    assert text in refused.value.message
    assert refused.value.hint
    assert refused.value.exit_code == USAGE

"""The admission webhook's part of `nodewright operator`: its options, and the reviewers put together.

Here and not in `controllers`, because the command line alone may bring the scheduler's reader of profiles and the
controllers together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nodewright.cli.output import USAGE, CliError
from nodewright.framework.webhook.options import WebhookOptions
from nodewright.framework.webhook.review import Reviewer
from nodewright.kube.client import Client

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMES = {
    "--webhook-service": (rf"{_LABEL}/[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?", "NS/NAME", "nodewright-system/webhook"),
    "--webhook-configuration": (rf"{_LABEL}(\.{_LABEL})*", "an object name", "nodewright"),
    "--webhook-secret": (rf"{_LABEL}(\.{_LABEL})*", "an object name", "nodewright-webhook-tls"),
}


def options(bind: str, service: str, configuration: str, secret: str) -> WebhookOptions | None:
    """Read the four options; None when none is given. Raises CliError for a wrong one, or for some without others."""
    from nodewright.cli.operator import parse_bind

    given = {
        "--webhook-bind": bind,
        "--webhook-service": service,
        "--webhook-configuration": configuration,
        "--webhook-secret": secret,
    }
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if missing:
        first = next(name for name, value in given.items() if value)
        hint = "give all four --webhook options, or none"
        raise CliError(f"{first} needs {', '.join(missing)} too", hint, USAGE)
    host, port = parse_bind(bind, "--webhook-bind")
    for name, (pattern, what, example) in _NAMES.items():
        if not re.fullmatch(pattern, given[name]):
            raise CliError(f"{name} {given[name]!r} is not {what}", f"for example {example}", USAGE)
    namespace, _, name = service.partition("/")
    return WebhookOptions(host=host, port=port, service=(namespace, name), configuration=configuration, secret=secret)


def reviewers(client: Client) -> Mapping[str, Reviewer]:
    """Everything that is reviewed, by path."""
    from nodewright.controllers.admission import registry

    return registry.reviewers(client, check_profile)


def check_profile(spec: Mapping[str, Any]) -> str:
    """What the scheduler would say about a profile, "" for nothing. Loads it at the first call: NumPy takes 13 MB."""
    from nodewright.scheduler.profile import ProfileError, profile_from_object

    try:
        profile_from_object(spec)
    except ProfileError as error:
        return str(error)
    return ""

"""What the webhook needs to know. Apart from `service`, so that an operator without one does not load X.509 code."""

from __future__ import annotations

import msgspec


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to serve, and the names of the objects around it.

    `service` is (namespace, name) of the Service in front of us; the Secret is in the same namespace. `extra_names` are
    further DNS names or addresses for the certificate, for configurations that call us by URL.
    """

    host: str = "0.0.0.0"
    port: int = 9443
    service: tuple[str, str]
    configuration: str
    secret: str
    extra_names: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """The names under which the API server calls us: it takes NAME.NAMESPACE.svc."""
        namespace, name = self.service
        return (f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", *self.extra_names)

"""The webhook of a process: server, certificates and readiness, put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from nodewright.framework.webhook import tls
from nodewright.framework.webhook.certificates import Lifetimes, Material
from nodewright.framework.webhook.keeper import SETTLE, CertificateKeeper
from nodewright.framework.webhook.options import WebhookOptions
from nodewright.framework.webhook.review import Reviewer
from nodewright.framework.webhook.server import WebhookServer
from nodewright.kube.client import Client

log = logging.getLogger(__name__)


class WebhookService:
    """Serves reviewers; every replica does, leader or not."""

    def __init__(
        self,
        client: Client,
        options: WebhookOptions,
        reviewers: Mapping[str, Reviewer],
        *,
        life: Lifetimes | None = None,
        settle: float = SETTLE,
    ) -> None:
        """`life` and `settle` are for tests of rotation."""
        self._options = options
        self._context = tls.server_context()
        self.server = WebhookServer(options.host, options.port, reviewers, self._context)
        self._keeper = CertificateKeeper(
            client,
            secret=(options.service[0], options.secret),
            configuration=options.configuration,
            names=options.names(),
            serve=self._use,
            life=life,
            settle=settle,
        )

    async def start(self) -> None:
        """Open the port. Raises OSError when the address is in use or not ours."""
        await self.server.start()
        log.info("serving the webhook", extra={"address": f"{self._options.host}:{self.server.port}"})

    async def run(self) -> None:
        """Keep the certificates until cancelled."""
        await self._keeper.run()

    async def stop(self) -> None:
        """Close the port; safe to call twice."""
        await self.server.stop()

    def trouble(self) -> str | None:
        """For /readyz: why the API server cannot call us, None when it can."""
        return self._keeper.trouble() if self.server.is_serving else "not listening"

    def _use(self, material: Material) -> None:
        tls.use(self._context, material.chain)

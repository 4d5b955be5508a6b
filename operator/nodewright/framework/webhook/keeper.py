"""Keeps the Secret, the configuration's caBundle and the served certificate in step, by watching both objects.

Every replica does this: who comes first writes, the others read (all writes carry a resourceVersion, and creation is
first come, first served). A new certificate is served only once the API server can trust it: when the watched
configuration has its authority in every caBundle, and `SETTLE` seconds later, for other API servers hear of it
by a watch as we do. So neither a rotation nor a deleted Secret makes a call fail.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from nodewright.framework.webhook import certificates, metrics
from nodewright.framework.webhook.certificates import Lifetimes, Material, UnusableMaterial
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import Object
from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from nodewright.kube.resources import SECRETS, VALIDATINGWEBHOOKCONFIGURATIONS
from nodewright.kube.serviceaccount import owner_references

log = logging.getLogger(__name__)

FIELD_MANAGER = "nodewright-operator"
SECRET_TYPE = "kubernetes.io/tls"
OWNER_LABEL = ("app.kubernetes.io/managed-by", "nodewright-operator")
SETTLE = 2.0  # seconds
_LONGEST_WAIT = 3600.0  # seconds; wall clocks can be set, and a sleeping task would not notice


class Secret(Object):
    """The fields of a Secret that matter here."""

    type: str = ""
    data: dict[str, str] = msgspec.field(default_factory=dict)


class ClientConfig(KubeStruct):
    """How the API server reaches a webhook; where, is the chart's business."""

    ca_bundle: str | None = None


class Webhook(KubeStruct):
    """One entry of a configuration."""

    name: str = ""
    client_config: ClientConfig = msgspec.field(default_factory=ClientConfig)


class Configuration(Object):
    """A ValidatingWebhookConfiguration."""

    webhooks: list[Webhook] = msgspec.field(default_factory=list)


class CertificateKeeper:
    """Runs until cancelled; `trouble` says why the webhook cannot be called, None when all is well."""

    def __init__(
        self,
        client: Client,
        *,
        secret: tuple[str, str],
        configuration: str,
        names: Sequence[str],
        serve: Callable[[Material], None],
        life: Lifetimes | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        settle: float = SETTLE,
    ) -> None:
        """`secret` is (namespace, name); `names` are what certificates are for; `serve` is told what to serve."""
        self._client = client
        self._namespace, self._name = secret
        self._configuration = configuration
        self._names = tuple(names)
        self._serve = serve
        self._life = life or Lifetimes()
        self._clock = clock
        self._settle = settle
        self._served: Material | None = None
        self._trusted_since: float | None = None  # loop time; of `_candidate`
        self._candidate: Material | None = None
        self._problem = "not started"
        self._changed = asyncio.Event()
        self._backoff = Backoff(0.5, 30.0)
        self._secrets: WatchCache[Secret] = WatchCache(
            client,
            SECRETS,
            type=Secret,
            namespace=self._namespace,
            field_selector=f"metadata.name={self._name}",
            name="webhook secret",
        )
        self._configurations: WatchCache[Configuration] = WatchCache(
            client,
            VALIDATINGWEBHOOKCONFIGURATIONS,
            type=Configuration,
            field_selector=f"metadata.name={configuration}",
            name="webhook configuration",
        )
        for cache in (self._secrets, self._configurations):
            cache.add_handler(lambda _old, _new: self._changed.set())

    def trouble(self) -> str | None:
        """For /readyz. An absent configuration is no trouble: nobody calls, and nobody should wait for it."""
        if self._served is None:
            return f"no certificate: {self._problem}"
        if not self._is_trusted(self._served):
            return f"the API server does not trust our certificate yet: caBundle of {self._configuration}"
        return None

    async def run(self) -> None:
        """Follow both objects, and keep them right, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run(), name="webhook secret")
            group.create_task(self._configurations.run(), name="webhook configuration")
            self._problem = f"cannot read Secret {self._namespace}/{self._name}"
            await self._secrets.wait_synced()
            self._problem = f"cannot read ValidatingWebhookConfiguration {self._configuration}"
            await self._configurations.wait_synced()
            while True:
                self._changed.clear()
                wait = await self._attempt()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _attempt(self) -> float:
        """One pass; gives the seconds after which to look again though nothing changes."""
        try:
            wait = await self._pass()
        except (Conflict, AlreadyExists) as error:
            # Another replica was faster, or our cache is behind; the watch is about to tell us.
            log.debug("will look again: %s", error)
            return self._backoff.next()
        except (ApiError, UnusableMaterial) as error:
            if str(error) != self._problem:
                log.warning("webhook certificates: %s; trying again", error)
            self._problem = str(error)
            return self._backoff.next()
        self._problem = ""
        self._backoff.reset()
        return min(wait, _LONGEST_WAIT)

    async def _pass(self) -> float:
        material = await self._ensure_secret()
        # Who is not served yet cannot lose anything; else first trust, then change over.
        await self._ensure_trust(material)
        wait = self._change_over(material)
        left = (certificates.next_look(material, self._life) - self._clock()).total_seconds()
        return max(0.0, left) if wait is None else min(wait, max(0.0, left))

    async def _ensure_secret(self) -> Material:
        """The Secret's content, after making or renewing what it lacks. Raises ApiError, UnusableMaterial."""
        secret = self._secrets.get(f"{self._namespace}/{self._name}")
        stored = self._read(secret)
        wanted = certificates.plan(stored, self._served, self._names, self._life, self._clock())
        if wanted is stored:
            return wanted
        if secret is None:
            await self._create(wanted)
        else:
            body = {"metadata": {"resourceVersion": secret.metadata.resource_version}, "data": wanted.data()}
            await self._client.patch(SECRETS, self._name, body, self._namespace, field_manager=FIELD_MANAGER)
        expires = wanted.cert.not_valid_after_utc.isoformat()
        log.info(
            "made a certificate for the webhook",
            extra={"secret": f"{self._namespace}/{self._name}", "expires": expires, "old": stored is not None},
        )
        return wanted

    def _read(self, secret: Secret | None) -> Material | None:
        if secret is None:
            return None
        if secret.metadata.labels.get(OWNER_LABEL[0]) != OWNER_LABEL[1] or secret.type != SECRET_TYPE:
            raise UnusableMaterial(
                f"Secret {secret.key} was not made by this operator (label {'='.join(OWNER_LABEL)}, type "
                f"{SECRET_TYPE}), and is left alone: delete it, or give another name by --webhook-secret"
            )
        try:
            return certificates.parse(secret.data)
        except UnusableMaterial as error:
            log.warning("the Secret is unusable and made anew: %s", error, extra={"secret": secret.key})
            return None

    async def _create(self, material: Material) -> None:
        secret = {
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": dict([OWNER_LABEL]),
                # It goes with the ServiceAccount as which it is made, when a release is uninstalled.
                "ownerReferences": await owner_references(self._client.config, self._namespace),
            },
            "type": SECRET_TYPE,
            "data": material.data(),
        }
        await self._client.create(SECRETS, secret, self._namespace)

    async def _ensure_trust(self, material: Material) -> None:
        """Write caBundle wherever it is not what the Secret says."""
        configuration = self._configurations.get(self._configuration)
        if configuration is None:
            return
        bundle = base64.b64encode(material.bundle).decode()
        wrong = [i for i, w in enumerate(configuration.webhooks) if w.client_config.ca_bundle != bundle]
        if not wrong:
            return
        # The resourceVersion makes indexes safe: should the list have changed, the server answers Conflict.
        patch = [{"op": "add", "path": "/metadata/resourceVersion", "value": configuration.metadata.resource_version}]
        patch += [{"op": "add", "path": f"/webhooks/{i}/clientConfig/caBundle", "value": bundle} for i in wrong]
        try:
            await self._client.patch(
                VALIDATINGWEBHOOKCONFIGURATIONS,
                self._configuration,
                patch,
                kind=PatchType.JSON,
                field_manager=FIELD_MANAGER,
            )
        except NotFound:
            return  # deleted meanwhile; the watch tells
        log.info("wrote caBundle", extra={"configuration": self._configuration, "webhooks": len(wrong)})

    def _change_over(self, material: Material) -> float | None:
        """Serve the material if it may be served now, else give the seconds until it may; None: nothing to wait for."""
        if self._served is not None and self._served.cert == material.cert:
            self._served = material  # its authorities may differ
            return None
        if self._served is None or self._served.cert.not_valid_after_utc <= self._clock():
            self._switch(material)
            return None
        if not self._is_trusted(material):
            self._candidate = None
            return None  # the change of the configuration wakes us
        now = asyncio.get_running_loop().time()
        if self._candidate is None or self._candidate.cert != material.cert:
            self._candidate, self._trusted_since = material, now
        assert self._trusted_since is not None
        left = self._trusted_since + self._settle - now
        if left > 0:
            return left
        self._switch(material)
        return None

    def _switch(self, material: Material) -> None:
        self._serve(material)
        self._served, self._candidate = material, None
        expires = material.cert.not_valid_after_utc
        metrics.EXPIRY.labels("serving").set(expires.timestamp())
        metrics.EXPIRY.labels("authority").set(material.authorities[0].not_valid_after_utc.timestamp())
        log.info("serving a certificate", extra={"serial": f"{material.cert.serial_number:x}", "expires": str(expires)})

    def _is_trusted(self, material: Material) -> bool:
        configuration = self._configurations.get(self._configuration)
        if configuration is None:
            return True
        return all(
            certificates.trusts(_decoded(webhook.client_config.ca_bundle), material)
            for webhook in configuration.webhooks
        )


def _decoded(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error:
        return b""

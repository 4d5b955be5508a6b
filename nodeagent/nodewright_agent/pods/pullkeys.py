"""The credentials of a Pod for its images, in kubelet's order: its pull secrets, the node's files, the providers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, ServerUnavailable, TooManyRequests
from nodewright.kube.objects import Pod, Secret, ServiceAccount
from nodewright.kube.resources import SECRETS, SERVICEACCOUNTS
from nodewright_agent.pods import refs
from nodewright_agent.pods.ports import Events
from nodewright_agent.runtime.images.accounts import Account, Accounts, ProviderError
from nodewright_agent.runtime.images.credentials import DOCKER_CFG, Credential, Origin, in_order, parse_docker_config
from nodewright_agent.runtime.images.reference import Reference

log = logging.getLogger(__name__)

_REMEMBERED = 128
"""Pull secrets that are kept for the time when the API server is away."""


class Files(Protocol):
    """What is needed of the node's credential files."""

    def current(self) -> list[Credential]:
        """The credentials as they are now."""


class Providers(Protocol):
    """What is needed of the credential providers."""

    async def lookup(self, image: Reference, accounts: Accounts) -> list[Credential]:
        """What they know for an image, in order."""


class Keyring:
    """Looks credentials up when somebody asks.

    Pull secrets are read each time. What they last held is kept in memory for the time when the API server is away:
    a container that ends then is started again, as kubelet does it from its cache.
    """

    def __init__(
        self, client: Client, events: Events, files: Files | None = None, providers: Providers | None = None
    ) -> None:
        """Pull secrets and ServiceAccounts are read through ``client``."""
        self._client, self._events, self._files, self._providers = client, events, files, providers
        self._last: dict[tuple[str, str], list[Credential]] = {}

    def lookup_once(self, pod: Pod, image: Reference) -> Callable[[], Awaitable[Sequence[Credential]]]:
        """A function that looks up those of a Pod for an image, at its first call."""
        known: list[Sequence[Credential]] = []

        async def lookup() -> Sequence[Credential]:
            if not known:
                known.append(await self.lookup(pod, image))
            return known[0]

        return lookup

    async def lookup(self, pod: Pod, image: Reference) -> list[Credential]:
        """Those of a Pod for an image, in the order in which they are to be tried."""
        secrets = await self._secrets(pod)
        node = self._files.current() if self._files is not None else []
        found = in_order([secrets, node], image)
        if self._providers is not None:
            found += await self._providers.lookup(image, lambda: self._account(pod))
        return found

    async def _secrets(self, pod: Pod) -> list[Credential]:
        found: list[Credential] = []
        missing = []
        for reference in pod.spec.image_pull_secrets:
            try:
                found += await self._secret(pod.metadata.namespace, reference.name)
            except (ApiError, ValueError) as error:
                log.warning("pull secret %s is of no use: %s", reference.name, error, extra={"pod": pod.key})
                missing.append(reference.name)
        if missing:
            text = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            self._events.event(refs.reference(pod), "Warning", "FailedToRetrieveImagePullSecret", text)
        return found

    async def _secret(self, namespace: str, name: str) -> list[Credential]:
        """What a Secret holds; raises ApiError, and ValueError where it is malformed."""
        key = namespace, name
        try:
            secret = await self._client.get(SECRETS, name, namespace, type=Secret)
        except (ServerUnavailable, TooManyRequests) as error:
            if key not in self._last:
                raise
            log.warning("pull secret %s is taken as it was last: %s", name, error, extra={"namespace": namespace})
            return self._last[key]
        except ApiError:
            self._last.pop(key, None)
            raise
        field = ".dockercfg" if secret.type == DOCKER_CFG else ".dockerconfigjson"
        origin = Origin("Secret", secret.metadata.uid, namespace, name)
        self._last.pop(key, None)
        found = parse_docker_config(secret.data.get(field, b"{}"), secret_type=secret.type, origin=origin)
        self._last[key] = found
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        return found

    async def _account(self, pod: Pod) -> Account | None:
        name, namespace = pod.spec.service_account_name, pod.metadata.namespace
        if not name:
            return None
        try:
            account = await self._client.get(SERVICEACCOUNTS, name, namespace, type=ServiceAccount)
        except ApiError as error:
            raise ProviderError(f"ServiceAccount {namespace}/{name}: {error}") from None
        origin = Origin("ServiceAccount", account.metadata.uid, namespace, name)

        async def token(audience: str) -> str:
            try:
                return await self._token(pod, name, audience)
            except ApiError as error:
                raise ProviderError(f"token of ServiceAccount {namespace}/{name}: {error}") from None

        return Account(origin, account.metadata.annotations, token)

    async def _token(self, pod: Pod, account: str, audience: str) -> str:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "boundObjectRef": bound},
        }
        answer = await self._client.create(
            SERVICEACCOUNTS, request, pod.metadata.namespace, name=account, subresource="token"
        )
        return str(answer["status"]["token"])

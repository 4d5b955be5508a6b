"""The node's identity over time: taken from disk, asked for, renewed, and asked for again when it became useless."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, ConfigError
from nodewright_agent.bootstrap import csr
from nodewright_agent.bootstrap.authority import ClientAuthority
from nodewright_agent.bootstrap.csr import CertificateRefused, NotAnswered
from nodewright_agent.bootstrap.request import obtain
from nodewright_agent.bootstrap.store import Identity, IdentityStore

log = logging.getLogger(__name__)

NAP = 600.0
"""Seconds after which a sleep towards a date looks at the clock again: clocks are set, hosts are suspended."""


class NodeIdentity:
    """One node's client certificate.

    ``ensure`` before anything is done as the node, ``run`` beside it all. What is on disk is used as long as it is
    valid, for this node, and issued by the cluster's present authority.
    """

    def __init__(
        self,
        node_name: str,
        bootstrap: Client,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        expiration_seconds: int | None = None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        """``bootstrap`` may ask for certificates of nodes; ``expiration_seconds`` asks for a lifetime, at least 600."""
        self.authority = ClientAuthority(directory)
        self.store = IdentityStore(directory)
        self._node_name, self._bootstrap, self._reader = node_name, bootstrap, bootstrap
        self._clock, self._expiration, self._rand = clock, expiration_seconds, rand
        self._identity: Identity | None = None
        self._authorities_changed = asyncio.Event()
        self.authority.on_change(self._authorities_changed.set)

    async def ensure(self) -> None:
        """Have a certificate that can be used; tried until it works."""
        await self.authority.load(self._reader)
        self._identity = self._stored()
        if (reason := self._useless()) is not None:
            log.info("the node asks for a certificate: %s", reason, extra={"node": self._node_name})
            await self._until_obtained(None)

    async def run(self, client: Client, reader: Client) -> None:
        """Renew the certificate in time, as the node itself (``client``), until cancelled.

        ``reader`` follows the cluster's authorities.
        """
        self._reader = reader
        async with asyncio.TaskGroup() as group:
            group.create_task(self.authority.run(reader))
            group.create_task(self._keep(client))

    async def renew(self, client: Client) -> None:
        """Get a new certificate with a new key, and store it. Raises CertificateRefused, ApiError, OSError."""
        key = self.store.pending_key()
        # Who asks decides who approves: a request that was left when the certificate expired is of no use.
        purpose = "bootstrap" if client is self._bootstrap else "renewal"
        try:
            pem = await obtain(client, self._node_name, key, purpose, self._expiration)
            identity = self._judged(key, pem)
        except NotAnswered:
            raise  # it may still be answered: the next try goes on with it
        except CertificateRefused:
            self.store.forget_pending()  # the next request is another one
            raise
        self.store.save(key, pem)
        self._identity = identity
        log.info(
            "the node has a new certificate",
            extra={"node": self._node_name, "expires": identity.leaf.not_valid_after_utc.isoformat()},
        )

    async def _keep(self, client: Client) -> None:
        while True:
            self._authorities_changed.clear()
            if (reason := self._useless()) is not None:
                log.error("the node's certificate cannot be used any more: %s; asking for another", reason)
            else:
                assert self._identity is not None
                moment = csr.renewal_time(self._identity.leaf, self._rand())
                if not await self._sleep_until(moment):
                    continue  # other authorities: is the certificate still one of theirs?
            await self._until_obtained(client)

    async def _until_obtained(self, client: Client | None) -> None:
        """Try until there is a new certificate: as the node while its certificate is good, else as at first.

        Where nodes may not renew (nobody bound ClusterRole ...:selfnodeclient), every other try is as at first.
        """
        backoff = Backoff(1.0, 300.0)
        for attempt in itertools.count():
            own = client if client is not None and attempt % 2 == 0 and self._useless() is None else self._bootstrap
            try:
                await self.renew(own)
            except (ApiError, ConfigError, CertificateRefused, OSError) as error:
                pause = backoff.next()
                log.error("no certificate for node %s: %s; trying again in %.0f s", self._node_name, error, pause)
                await asyncio.sleep(pause)
                await self.authority.load(self._reader)  # what was refused may be right by now
            else:
                return

    async def _sleep_until(self, moment: datetime) -> bool:
        """Sleep; False when the authorities changed meanwhile."""
        while (left := (moment - self._now()).total_seconds()) > 0:
            try:
                async with asyncio.timeout(min(left, NAP)):
                    await self._authorities_changed.wait()
            except TimeoutError:
                continue
            return False
        return True

    def _stored(self) -> Identity | None:
        try:
            return self.store.load()
        except (ValueError, OSError) as error:
            log.warning("the stored certificate is given up: %s", error)
            return None

    def _useless(self) -> str | None:
        """Return why the identity at hand cannot be used; None when it can."""
        held = self._identity
        if held is None:
            return "there is none yet"
        problem = csr.fault(held.chain, held.key, self._node_name, self.authority.certificates(), self._now())
        return f"{self.store.current}: {problem}" if problem else None

    def _judged(self, key: csr.Key, pem: bytes) -> Identity:
        try:
            identity = Identity.read(key, pem)
        except ValueError as error:
            raise CertificateRefused(f"what was issued is no certificate: {error}") from None
        problem = csr.fault(identity.chain, key, self._node_name, self.authority.certificates(), self._now())
        if problem:
            raise CertificateRefused(f"the certificate that was issued is refused: {problem}")
        return identity

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

"""Asks the cluster for a certificate and waits for it: one CertificateSigningRequest, followed by a watch."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any, cast

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, Gone, ServerUnavailable
from nodewright.kube.resources import CSRS
from nodewright_agent.bootstrap import csr
from nodewright_agent.bootstrap.csr import CertificateRefused, NotAnswered, SigningRequest

log = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds after which a request that nobody has approved is worth a warning."""
WAIT = 900.0
"""Seconds after which to ask again (kubelet's certificateWaitTimeout)."""
IDLE = 90.0
"""Seconds without a byte after which a watch is taken for broken; bookmarks come every minute."""


async def obtain(
    client: Client, node_name: str, key: csr.Key, purpose: str, expiration_seconds: int | None = None
) -> bytes:
    """Return the certificate (PEM) for ``key``. A request that exists for it and ``purpose`` is gone on with.

    Raises CertificateRefused when the request was denied or failed, NotAnswered when nobody did anything in ``WAIT``
    seconds, ApiError when the cluster cannot be asked.
    """
    name = csr.request_name(key, purpose)
    request = await _submit(client, csr.request_body(name, node_name, key, expiration_seconds), key)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _follow(client, name, request)
    except TimeoutError:
        request = await client.get(CSRS, name, type=SigningRequest)
        log.warning("%s", _waiting(request, PATIENCE))
    try:
        async with asyncio.timeout(WAIT - PATIENCE):
            return await _follow(client, name, request)
    except TimeoutError:
        raise NotAnswered(_waiting(await client.get(CSRS, name, type=SigningRequest), WAIT)) from None


async def _submit(client: Client, body: dict[str, Any], key: csr.Key) -> SigningRequest:
    name = body["metadata"]["name"]
    try:
        request = await client.create(CSRS, body, type=SigningRequest)
    except AlreadyExists:
        request = await client.get(CSRS, name, type=SigningRequest)
        if not csr.asks_for(request, key):
            raise CertificateRefused(f"CertificateSigningRequest {name} exists, and asks for something else") from None
    log.info("waiting for a certificate", extra={"csr": name, "user": request.spec.username})
    return request


async def _follow(client: Client, name: str, request: SigningRequest) -> bytes:
    """Return the certificate once it is there. Raises NotFound when the request has disappeared."""
    backoff = Backoff(0.5, 15.0)
    while True:
        if (certificate := csr.outcome(request)) is not None:
            return certificate
        try:
            found = await _watch(client, name, request.metadata.resource_version)
        except (Gone, ServerUnavailable) as error:
            log.info("watching CertificateSigningRequest %s: %s; looking again", name, error)
            found = None
        if found is not None:
            return found
        await asyncio.sleep(backoff.next())
        request = await client.get(CSRS, name, type=SigningRequest)


async def _watch(client: Client, name: str, version: str) -> bytes | None:
    """Return the certificate, or None when the watch ended without one."""
    events = client.watch(
        CSRS,
        type=SigningRequest,
        field_selector=f"metadata.name={name}",
        resource_version=version,
        idle_timeout=IDLE,
    )
    async with aclosing(cast("Any", events)) as stream:
        async for event in stream:
            if event.type == "DELETED":
                return None  # the next look says NotFound
            if event.type == "BOOKMARK":
                continue
            if (certificate := csr.outcome(event.object)) is not None:
                return certificate
    return None


def _waiting(request: SigningRequest, seconds: float) -> str:
    """Return who lets the request wait, and what can be done."""
    name = request.metadata.name
    if csr.approved(request):
        return (
            f"CertificateSigningRequest {name} is approved, but not signed after {seconds:.0f} s: "
            f"kube-controller-manager signs for {csr.SIGNER} where it has --cluster-signing-cert-file; is it running?"
        )
    return (
        f"CertificateSigningRequest {name} of {request.spec.username} is not approved after {seconds:.0f} s. "
        "kube-controller-manager approves it where that account is bound to ClusterRole "
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient (for renewals: selfnodeclient); "
        f"by hand: kubectl certificate approve {name}"
    )

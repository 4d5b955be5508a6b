"""A client for registries (the OCI distribution protocol): manifests and blobs, hardened against bad ones."""

import asyncio
import base64
import logging
import random
import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp

from nodewright_agent.runtime.images import challenge, manifest, strictjson
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import (
    ErrImagePull,
    ImageCorrupt,
    ImageNotFound,
    RegistryUnavailable,
    Unauthorized,
)
from nodewright_agent.runtime.images.layerstore import Feed
from nodewright_agent.runtime.images.manifest import Descriptor
from nodewright_agent.runtime.images.reference import Reference, is_digest
from nodewright_agent.runtime.images.settings import Endpoint, is_private_address

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
_MAX_WAIT: Final = (
    30.0  # seconds; a registry that asks for more is reported instead, kubelet's back-off is the better wait
)
_MAX_REDIRECTS: Final = 5
_SMALL_TIMEOUT: Final = 60.0  # for manifests, configurations and tokens, in all
_READ_TIMEOUT: Final = 60.0  # without a single byte
_RATE_WINDOW: Final = 60.0
_MIN_RATE: Final = 1024  # bytes per second over a window: below, the registry only holds the place
_MAX_TOKEN: Final = 1 << 20
_RETRY_STATUS: Final = frozenset((429, 500, 502, 503, 504))


class RegistryClient:
    """Fetches from one endpoint with one credential. Use as an async context manager."""

    def __init__(self, endpoint: Endpoint, reference: Reference, credential: Credential | None = None) -> None:
        self._endpoint = endpoint
        self._repository = reference.path
        self._credential = credential
        self.used: Credential | None = None
        """The credential, once the registry (or its token service) has been shown it."""
        self._authorization: str | None = None
        self._auth_lock = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "RegistryClient":
        connector = aiohttp.TCPConnector(limit=8, ssl=_ssl_context(self._endpoint))
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,  # digests are of the bytes as stored
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 20,  # the loop goes on receiving while a thread unpacks
            headers={"User-Agent": "nodewright", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=_READ_TIMEOUT),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def manifest(self, target: str) -> tuple[bytes, str, str]:
        """Fetch a manifest by tag or digest; returns bytes, Content-Type and digest (verified)."""
        url = f"{self._endpoint.base}/v2/{self._repository}/manifests/{target}"
        data, response = await self._small(url, manifest.MAX_MANIFEST_BYTES, {"Accept": manifest.ACCEPT})
        claimed = response.headers.get("Docker-Content-Digest", "")
        digest = target if is_digest(target) else claimed if is_digest(claimed) else ""
        if digest:
            manifest.verify(data, digest, "manifest")
        else:
            digest = manifest.sha256(data)
        return data, response.headers.get("Content-Type", ""), digest

    async def small_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """Fetch a blob into memory; verified."""
        if descriptor.size > limit:
            raise ImageCorrupt(f"blob {descriptor.digest} says it has {descriptor.size} bytes, more than {limit}")
        data, _ = await self._small(self._blob_url(descriptor), descriptor.size, {})
        manifest.verify(data, descriptor.digest, "blob")
        return data

    async def stream_blob(self, descriptor: Descriptor, feed: Feed) -> None:
        """Stream a blob into `feed`, resuming after broken connections. Size and digest are the receiver's to check."""
        done, failures = 0, 0
        while done < descriptor.size or not done:
            before = done
            try:
                async with aclosing(self._read_from(descriptor, done)) as pieces:
                    async for data in pieces:
                        done += len(data)
                        await feed(data)
                if done >= descriptor.size:
                    return
                raise aiohttp.ClientPayloadError("connection closed early")
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                failures = 1 if done > before else failures + 1  # progress earns new patience
                if failures >= _ATTEMPTS:
                    raise self._unreachable(error) from error
                log.info("resuming an interrupted download",
                         extra={"blob": descriptor.digest, "at": done, "error": str(error)})  # fmt: skip
                await asyncio.sleep(_delay(failures))

    async def _read_from(self, descriptor: Descriptor, start: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._get(self._blob_url(descriptor), headers) as response:
            skip = 0
            if start and response.status == 206:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                    raise ImageCorrupt(f"registry answered another range than asked for blob {descriptor.digest}")
            elif start:
                skip = (
                    start  # the server ignores Range: pass over what is there already; the digest tells if it differs
                )
            window, received = time.monotonic(), 0
            async for data in response.content.iter_any():
                received += len(data)
                if time.monotonic() - window > _RATE_WINDOW:
                    if received < _MIN_RATE * _RATE_WINDOW:
                        raise ErrImagePull(f"registry sends blob {descriptor.digest} too slowly")
                    window, received = time.monotonic(), 0
                if skip >= len(data):
                    skip -= len(data)
                    continue
                piece, skip = data[skip:], 0
                yield piece

    def _blob_url(self, descriptor: Descriptor) -> str:
        return f"{self._endpoint.base}/v2/{self._repository}/blobs/{descriptor.digest}"

    async def _small(self, url: str, limit: int, headers: dict[str, str]) -> tuple[bytes, aiohttp.ClientResponse]:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_SMALL_TIMEOUT), self._get(url, headers) as response:
                    return await _read_limited(response, limit), response
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                failures += 1
                if failures >= 3 or isinstance(error, (aiohttp.ClientSSLError, TimeoutError)):
                    raise self._unreachable(error) from error
                await asyncio.sleep(_delay(failures))

    def _unreachable(self, error: BaseException) -> RegistryUnavailable:
        said = str(error) or type(error).__name__
        return RegistryUnavailable(f"failed to reach registry {urlsplit(self._endpoint.base).netloc}: {said}")

    @asynccontextmanager
    async def _get(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET with authentication, redirects by our rules, and bounded patience; yields 200 or 206 only."""
        authenticated = False
        for attempt in range(1, _ATTEMPTS + 1):
            sent = self._authorization
            response = await self._follow(url, headers, sent)
            async with response:
                if response.status in (200, 206):
                    yield response
                    return
                if response.status == 401 and not authenticated:
                    authenticated = True
                    await self._authenticate(response, sent)
                    continue
                if response.status not in _RETRY_STATUS or attempt == _ATTEMPTS:
                    raise self._failure(response)
                wait = _retry_after(response.headers.get("Retry-After"))
                if wait is not None and wait > _MAX_WAIT:
                    raise self._failure(response)
            await asyncio.sleep(_delay(attempt) if wait is None else wait)

    async def _follow(self, url: str, headers: dict[str, str], authorization: str | None) -> aiohttp.ClientResponse:
        assert self._session is not None
        origin = url
        for _ in range(_MAX_REDIRECTS + 1):
            own = (
                {**headers, "Authorization": authorization}
                if authorization and challenge.same_origin(origin, url)
                else headers
            )
            response = await self._session.get(url, headers=own, allow_redirects=False, proxy=_proxy(url))
            if response.status not in (301, 302, 303, 307, 308):
                return response
            location = response.headers.get("Location", "")
            response.release()
            try:
                target = urljoin(url, location)
            except ValueError:
                raise ErrImagePull(f"registry redirects to {location[:200]!r}, which is malformed") from None
            if not challenge.redirect_allowed(url, target, self._endpoint):
                raise ErrImagePull(f"registry redirects to {target[:200]!r}, which is not allowed")
            url = target
        raise ErrImagePull("registry redirects too often")

    def _failure(self, response: aiohttp.ClientResponse) -> Exception:
        where = f"{response.method} {response.url.with_query(None)}: {response.status} {response.reason}"
        if response.status == 404:
            return ImageNotFound(f"not found ({where})")
        if response.status in (401, 403):
            return Unauthorized(f"pull access denied, repository does not exist or may require authorization ({where})")
        if response.status in _RETRY_STATUS:
            return RegistryUnavailable(f"registry is not available ({where})")
        return ErrImagePull(f"unexpected status ({where})")

    async def _authenticate(self, response: aiohttp.ClientResponse, sent: str | None) -> None:
        async with self._auth_lock:
            if self._authorization != sent:
                return  # another request has just done it
            asked = challenge.parse(response.headers.get("WWW-Authenticate", ""))
            if asked.scheme == "basic":
                if self._credential is None or sent is not None:
                    raise self._failure(response)
                self._authorization = _basic(self._credential)
                self.used = self._credential
                return
            url = challenge.token_url(asked, self._endpoint, self._repository)
            self._authorization = f"Bearer {await self._token(url)}"
            self.used = self._credential

    async def _token(self, url: str) -> str:
        try:
            async with asyncio.timeout(_SMALL_TIMEOUT), self._token_request(url) as response:
                if response.status != 200:
                    raise Unauthorized(f"failed to fetch a token from {urlsplit(url).netloc}: {response.status}")
                data = await _read_limited(response, _MAX_TOKEN)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        document = strictjson.loads(data, "token response", limit=_MAX_TOKEN)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ErrImagePull("registry's token service sent no usable token")
        return token

    def _token_request(self, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """GET with basic authentication, or the OAuth2 POST where the credential is an identity token."""
        assert self._session is not None
        credential = self._credential
        if credential is None or not credential.identity_token:
            headers = {"Authorization": _basic(credential)} if credential else {}
            return self._session.get(url, headers=headers, allow_redirects=False, proxy=_proxy(url))
        parts = urlsplit(url)
        form = dict(parse_qsl(parts.query))
        form |= {"grant_type": "refresh_token", "refresh_token": credential.identity_token, "client_id": "nodewright"}
        return self._session.post(
            parts._replace(query="").geturl(), data=form, allow_redirects=False, proxy=_proxy(url)
        )


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


async def _read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts, total = [], 0
    async for data in response.content.iter_any():
        total += len(data)
        if total > limit:
            raise ImageCorrupt(f"answer of {response.url.with_query(None)} is larger than {limit} bytes")
        parts.append(data)
    return b"".join(parts)


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header; None when absent, a date or negative: then the own back-off counts."""
    try:
        seconds = float(header) if header is not None else -1.0
    except ValueError:
        return None
    return seconds if seconds >= 0 else None


def _delay(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * min(0.2 * 2.0**attempt, 5.0)


def _proxy(url: str) -> str | None:
    """HTTPS_PROXY and the like, but not ~/.netrc, which aiohttp's trust_env would also send to registries."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or "") or is_private_address(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _ssl_context(endpoint: Endpoint) -> Any:
    if endpoint.base.startswith("http://"):
        return True
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ErrImagePull(f"cannot read ca-file {endpoint.ca_file}: {error}") from error
    if endpoint.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

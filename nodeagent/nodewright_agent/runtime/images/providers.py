"""Programs that know registry credentials (kubelet's exec credential providers): asked for an image, and their answers
kept as long as they say. A provider that fails is logged and counted, and gives nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

import msgspec

from nodewright_agent.eviction import durations
from nodewright_agent.runtime import processes
from nodewright_agent.runtime.images.accounts import Accounts, ProviderError
from nodewright_agent.runtime.images.credentials import Credential, fits, matching, strip_scheme
from nodewright_agent.runtime.images.inflight import Shared
from nodewright_agent.runtime.images.providerconfig import Provider
from nodewright_agent.runtime.images.reference import Reference

log = logging.getLogger(__name__)

TIMEOUT: Final = 60.0
"""Seconds that a provider gets, as with kubelet."""
_MAX_ANSWER: Final = 1 << 20
_MAX_COMPLAINT: Final = 4096
_OURS: Final = frozenset(
    ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
)
"""Variables by which a service manager addresses the agent, and nobody else."""


class _Auth(msgspec.Struct, frozen=True):
    username: str = ""
    password: str = ""


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    cache_key_type: Literal["Image", "Registry", "Global"]
    cache_duration: str | None = None
    auth: dict[str, _Auth] | None = None


class _Kept(NamedTuple):
    until: float
    auth: dict[str, _Auth]


Meter = Callable[[str, float, bool], None]
"""Takes how a run went: the provider's name, seconds, and whether it failed."""


class Providers:
    """All of them, in the order of the configuration."""

    def __init__(self, providers: Sequence[Provider], programs: Path, meter: Meter | None = None) -> None:
        """`programs` is the folder where they are."""
        self._providers = [_Runner(provider, programs, meter) for provider in providers]

    async def lookup(self, image: Reference, accounts: Accounts) -> list[Credential]:
        """What they know for an image, as one keyring: the most specific first, whoever knew it."""
        found: list[Credential] = []
        for provider in self._providers:
            found += await provider.provide(image, accounts)
        return matching(found, image)


class _Runner:
    """One provider."""

    def __init__(self, provider: Provider, programs: Path, meter: Meter | None) -> None:
        self._provider, self._program, self._meter = provider, str(programs / provider.name), meter
        self._cache: dict[tuple[str, ...], _Kept] = {}
        self._asking: dict[tuple[str, ...], Shared[_Answer]] = {}

    async def provide(self, image: Reference, accounts: Accounts) -> list[Credential]:
        """What it knows for an image; nothing where it is not for such images, or fails."""
        if not any(fits(pattern, image) for pattern in self._provider.match_images):
            return []
        try:
            return await self._provide(image, accounts)
        except (ProviderError, OSError, TimeoutError) as error:
            details = {"provider": self._provider.name, "image": image.repository}
            log.warning("credential provider gives nothing: %s", error or type(error).__name__, extra=details)
            return []

    async def _provide(self, image: Reference, accounts: Accounts) -> list[Credential]:
        origin, annotations, token = None, {}, ""
        scope: tuple[str, ...] = ()
        wanted = self._provider.token_attributes
        if wanted is not None:
            account = await accounts()
            if account is None and wanted.require_service_account:
                return []
            if account is not None:
                chosen = self._annotations(account.annotations)
                if chosen is None:
                    return []  # a required one is missing: the account has not asked for this provider
                origin, annotations = account.origin, chosen
                token = await account.token(wanted.service_account_token_audience)
                scope = (origin.namespace, origin.name, origin.uid, *(f"{k}={v}" for k, v in sorted(chosen.items())))
                if wanted.cache_type == "Token":
                    scope = (*scope, token)
        repository = image.repository
        kept = self._kept(repository, image.domain, scope)
        if kept is None:
            answer = await self._ask_once(repository, token, annotations)
            echoed = bool(token) and any(auth.password == token for auth in (answer.auth or {}).values())
            if echoed and wanted is not None and wanted.cache_type != "Token":
                raise ProviderError("it returned the token as password, which needs cacheType Token")
            kept = self._keep(answer, repository, image.domain, scope)
        return [
            Credential(strip_scheme(where), one.username, one.password, origin=origin) for where, one in kept.items()
        ]

    def _annotations(self, present: Mapping[str, str]) -> dict[str, str] | None:
        wanted = self._provider.token_attributes
        assert wanted is not None
        if any(key not in present for key in wanted.required_service_account_annotation_keys):
            return None
        keys = (*wanted.required_service_account_annotation_keys, *wanted.optional_service_account_annotation_keys)
        return {key: present[key] for key in keys if key in present}

    def _kept(self, repository: str, registry: str, scope: tuple[str, ...]) -> dict[str, _Auth] | None:
        for key in (("Image", repository), ("Registry", registry), ("Global", "")):
            kept = self._cache.get((*key, *scope))
            if kept is not None and time.monotonic() < kept.until:
                return kept.auth
        return None

    def _keep(self, answer: _Answer, repository: str, registry: str, scope: tuple[str, ...]) -> dict[str, _Auth]:
        now, auth = time.monotonic(), answer.auth or {}
        self._cache = {key: kept for key, kept in self._cache.items() if now < kept.until}
        try:
            duration = answer.cache_duration
            seconds = self._provider.cache_seconds if duration is None else durations.seconds(duration)
        except ValueError:
            raise ProviderError("its cacheDuration is no duration") from None
        if seconds > 0:
            place = {"Image": repository, "Registry": registry, "Global": ""}[answer.cache_key_type]
            self._cache[(answer.cache_key_type, place, *scope)] = _Kept(now + seconds, auth)
        return auth

    async def _ask_once(self, repository: str, token: str, annotations: Mapping[str, str]) -> _Answer:
        """Ask, or wait for the same question that is being asked."""
        key = (repository, token, *(f"{name}={value}" for name, value in sorted(annotations.items())))
        if key not in self._asking:
            asking = self._asking[key] = Shared(self._ask(repository, token, annotations))
            asking.task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await self._asking[key].join()

    async def _ask(self, repository: str, token: str, annotations: Mapping[str, str]) -> _Answer:
        request: dict[str, object] = {
            "kind": "CredentialProviderRequest",
            "apiVersion": self._provider.api_version,
            "image": repository,
        }
        if token:
            request |= {"serviceAccountToken": token, "serviceAccountAnnotations": dict(annotations)}
        began, failed = time.monotonic(), True
        try:
            output = await self._run(msgspec.json.encode(request))
            failed = False
        finally:
            if self._meter is not None:
                self._meter(self._provider.name, time.monotonic() - began, failed)
        try:
            answer = msgspec.json.decode(output, type=_Answer)
        except msgspec.MsgspecError:
            raise ProviderError("its answer is not a CredentialProviderResponse") from None
        if answer.kind != "CredentialProviderResponse" or answer.api_version != self._provider.api_version:
            raise ProviderError(f"its answer is not a CredentialProviderResponse of {self._provider.api_version}")
        return answer

    async def _run(self, request: bytes) -> bytes:
        """Run the program with the request as its input; its output. After a minute it is killed with its children."""
        with contextlib.ExitStack() as stack:
            question = stack.enter_context(open(os.memfd_create("credential-request"), "w+b", buffering=0))
            question.write(request)
            question.seek(0)
            (answer, stdout), (complaint, stderr) = (_pipe(stack) for _ in range(2))
            process = self._start(question, stdout, stderr)
            stdout.close()
            stderr.close()
            try:
                async with asyncio.timeout(TIMEOUT):
                    output, said = await asyncio.gather(
                        _read(answer.fileno(), _MAX_ANSWER, lambda: _kill(process)),
                        _read(complaint.fileno(), _MAX_COMPLAINT, lambda: None),
                    )
                    code = await processes.wait(process)
            except TimeoutError:
                raise ProviderError(f"it has not ended within {TIMEOUT:g} s") from None
            finally:
                if process.returncode is None:
                    _kill(process)
                    process.wait()
        if len(output) > _MAX_ANSWER:
            raise ProviderError(f"its answer is larger than {_MAX_ANSWER} bytes")
        if code:
            raise ProviderError(f"exit code {code}: {said[:_MAX_COMPLAINT].decode(errors='replace').strip()}")
        return output

    def _start(self, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the program with our environment, as kubelet does: proxies and the like are there. No descriptors."""
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        environment |= {one.name: one.value for one in self._provider.env}
        return subprocess.Popen(
            [self._program, *self._provider.args],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd="/",
            process_group=0,
            close_fds=True,
        )


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return (
        stack.enter_context(open(reading, "rb", buffering=0)),
        stack.enter_context(open(writing, "wb", buffering=0)),
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a provider and what it has started; it has not been waited for, so the number is its own still."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read(fd: int, limit: int, overflowing: Callable[[], None]) -> bytes:
    """Read to the end and keep a little more than `limit` bytes, so that the writer is not held up by the rest."""
    kept = bytearray()
    while True:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            await processes.readable(fd)
            continue
        if not data:
            return bytes(kept)
        if len(kept) <= limit:
            kept += data
            if len(kept) > limit:
                overflowing()


__all__ = ["TIMEOUT", "Meter", "Providers"]

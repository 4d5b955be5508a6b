"""Exec credential plugins of kubeconfig (client.authentication.k8s.io/v1 and v1beta1)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from nodewright.kube import times
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.errors import ConfigError

API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_TIMEOUT = 60.0  # seconds; a plugin may ask a person, but must not hang a controller for ever
_EARLY = timedelta(seconds=5)  # a token that expires while the request travels is of no use
_OUTPUT_LIMIT = 1 << 20


class _CredentialStatus(KubeStruct):
    token: str = ""
    expiration_timestamp: str | None = None
    client_certificate_data: str = ""
    client_key_data: str = ""


class _Credential(KubeStruct):
    api_version: str = ""
    kind: str = ""
    status: _CredentialStatus | None = None


class ExecPlugin:
    """Runs a command that prints an ExecCredential, and keeps the answer until it expires."""

    def __init__(
        self,
        command: str,
        args: list[str],
        *,
        env: dict[str, str],
        api_version: str,
        interactive: str = "IfAvailable",
        cluster_info: dict[str, object] | None = None,
        install_hint: str = "",
        clock: Callable[[], datetime] = times.now,
    ) -> None:
        """Take the `exec` part of a kubeconfig's user. A command with a slash must already be absolute."""
        self._command = command
        self._args = args
        self._env = env
        self._api_version = api_version
        self._interactive = interactive
        self._cluster_info = cluster_info
        self._install_hint = install_hint
        self._clock = clock
        self._status: _CredentialStatus | None = None
        self._expires: datetime | None = None
        self._lock = asyncio.Lock()
        self.certificate: tuple[bytes, bytes] | None = None

    async def token(self) -> str:
        """Give the token, "" where the plugin brought a certificate alone. Raises ConfigError with its output."""
        async with self._lock:  # many requests, one run
            if self._status is None or (self._expires is not None and self._clock() >= self._expires - _EARLY):
                self._accept(await self._run())
            assert self._status is not None
            return self._status.token

    def invalidate(self) -> None:
        """Run the plugin again the next time."""
        self._status = None

    def _accept(self, output: bytes) -> None:
        try:
            credential = msgspec.json.decode(output, type=_Credential)
        except msgspec.DecodeError as error:
            raise ConfigError(f"exec plugin {self._command}: no ExecCredential on its output: {error}") from None
        if credential.kind != "ExecCredential" or credential.api_version != self._api_version:
            raise ConfigError(
                f"exec plugin {self._command}: got {credential.api_version} {credential.kind}, "
                f"configured is {self._api_version} ExecCredential"
            )
        status = credential.status
        if status is None or not (status.token or status.client_certificate_data):
            raise ConfigError(f"exec plugin {self._command}: status has neither token nor clientCertificateData")
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise ConfigError(f"exec plugin {self._command}: clientCertificateData and clientKeyData go together")
        try:
            self._expires = times.parse_rfc3339(status.expiration_timestamp) if status.expiration_timestamp else None
        except ValueError as error:
            raise ConfigError(f"exec plugin {self._command}: expirationTimestamp: {error}") from None
        if status.client_certificate_data:
            self.certificate = status.client_certificate_data.encode(), status.client_key_data.encode()
        self._status = status

    async def _run(self) -> bytes:
        interactive = self._interactive != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if self._interactive == "Always" and not interactive:
            raise ConfigError(f"exec plugin {self._command}: it needs a terminal (interactiveMode: Always)")
        spec: dict[str, object] = {"interactive": interactive}
        if self._cluster_info is not None:
            spec["cluster"] = self._cluster_info
        info = msgspec.json.encode({"apiVersion": self._api_version, "kind": "ExecCredential", "spec": spec}).decode()
        try:
            process = await asyncio.create_subprocess_exec(
                self._command,
                *self._args,
                stdin=None if interactive else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **self._env, "KUBERNETES_EXEC_INFO": info},
            )
        except OSError as error:
            hint = f"; {self._install_hint}" if self._install_hint else ""
            raise ConfigError(f"exec plugin {self._command}: {error}{hint}") from None
        try:
            async with asyncio.timeout(_TIMEOUT):
                output, errors = await process.communicate()
        except TimeoutError:
            raise ConfigError(f"exec plugin {self._command}: no answer within {_TIMEOUT:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = errors[-2000:].decode("utf-8", "replace").strip()
            raise ConfigError(f"exec plugin {self._command}: exit code {process.returncode}: {said}")
        return output[:_OUTPUT_LIMIT]


def resolve_command(command: str, base: Path) -> str:
    """Apply kubeconfig's rule: a bare name is looked up in PATH, a relative path starts at the kubeconfig's folder."""
    if "/" in command and not os.path.isabs(command):
        return str(base / command)
    return command

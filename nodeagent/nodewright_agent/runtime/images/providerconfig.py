"""kubelet's CredentialProviderConfig (`--image-credential-provider-config`): reading it, and what may be in it.

Fields and rules as in kubelet.config.k8s.io/v1 and validateCredentialProviderConfig of kubelet 1.36.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from nodewright_agent import settingsfile
from nodewright_agent.eviction import durations

CONFIG_VERSIONS: Final = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
PROVIDER_VERSIONS: Final = tuple(
    f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1")
)
_QUALIFIED: Final = re.compile(
    r"(?:[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?\Z"
)


class ProviderConfigError(ValueError):
    """The configuration cannot be used; the text names file, field and reason."""


class EnvVar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable for a provider."""

    name: str
    value: str


class TokenAttributes(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """That a provider gets a token of the Pod's ServiceAccount (KEP-4412)."""

    service_account_token_audience: str
    require_service_account: bool
    cache_type: Literal["ServiceAccount", "Token"]
    required_service_account_annotation_keys: list[str] = []
    optional_service_account_annotation_keys: list[str] = []


class Provider(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One program that knows credentials."""

    name: str
    match_images: list[str]
    default_cache_duration: str
    api_version: str
    args: list[str] = []
    env: list[EnvVar] = []
    token_attributes: TokenAttributes | None = None

    @property
    def cache_seconds(self) -> float:
        """How long an answer is kept that does not say."""
        return durations.seconds(self.default_cache_duration)


class _Document(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    api_version: str
    kind: str
    providers: list[Provider] = []


def load(path: Path, programs: Path) -> list[Provider]:
    """Read a file, or the `*.json`, `*.yaml` and `*.yml` of a folder in the order of their names, and check it all.

    The programs must be there and executable. Raises ProviderConfigError.
    """
    providers: list[Provider] = []
    for file in _files(path):
        for provider in _decode(file).providers:
            problem = _problem(provider, programs)
            if not problem and provider.name in {known.name for known in providers}:
                problem = "occurs twice"
            if problem:
                raise ProviderConfigError(f"{file}: provider {provider.name!r}: {problem}")
            providers.append(provider)
    if not providers:
        raise ProviderConfigError(f"{path}: has no providers")
    return providers


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(one for one in path.iterdir() if one.suffix in (".json", ".yaml", ".yml") and one.is_file())
    except OSError as error:
        raise ProviderConfigError(f"{path}: {error.strerror}") from None
    if not found:
        raise ProviderConfigError(f"{path}: the folder has no .json, .yaml or .yml file")
    return found


def _decode(file: Path) -> _Document:
    try:
        document = msgspec.convert(settingsfile.read(file), _Document)
    except settingsfile.SettingsFileError as error:
        raise ProviderConfigError(str(error)) from None
    except msgspec.ValidationError as error:
        raise ProviderConfigError(f"{file}: {error}") from None
    if document.kind != "CredentialProviderConfig" or document.api_version not in CONFIG_VERSIONS:
        raise ProviderConfigError(
            f"{file}: is {document.api_version} {document.kind}, not {CONFIG_VERSIONS[0]} CredentialProviderConfig"
        )
    return document


def _problem(provider: Provider, programs: Path) -> str:
    """What is wrong with a provider; empty: nothing."""
    name = provider.name
    if not name or "/" in name or " " in name or name in (".", ".."):
        return "name: is no file name, or has spaces"
    if provider.api_version not in PROVIDER_VERSIONS:
        return f"apiVersion: {provider.api_version!r} is none of {', '.join(PROVIDER_VERSIONS)}"
    if not provider.match_images:
        return "matchImages: is empty"
    for pattern in provider.match_images:
        if not pattern or "://" in pattern or any(char.isspace() for char in pattern):
            return f"matchImages: {pattern!r} is not HOST[:PORT][/PATH]"
    try:
        provider.cache_seconds  # noqa: B018 - reading it is the check
    except ValueError as error:
        return f"defaultCacheDuration: {error}"
    if provider.token_attributes is not None:
        problem = _token_problem(provider.token_attributes, provider.api_version)
        if problem:
            return f"tokenAttributes.{problem}"
    program = programs / name
    if not program.is_file():
        return f"{program} does not exist"
    return "" if os.access(program, os.X_OK) else f"{program} is not executable"


def _token_problem(wanted: TokenAttributes, version: str) -> str:
    required = wanted.required_service_account_annotation_keys
    optional = wanted.optional_service_account_annotation_keys
    if version != PROVIDER_VERSIONS[0]:
        return f"serviceAccountTokenAudience: needs apiVersion {PROVIDER_VERSIONS[0]}"
    if not wanted.service_account_token_audience:
        return "serviceAccountTokenAudience: is empty"
    if required and not wanted.require_service_account:
        return "requiredServiceAccountAnnotationKeys: needs requireServiceAccount"
    keys = [*required, *optional]
    if len(set(keys)) != len(keys):
        return "requiredServiceAccountAnnotationKeys: a key occurs twice, or is optional too"
    bad = [key for key in keys if not _QUALIFIED.match(key.lower())]
    return f"requiredServiceAccountAnnotationKeys: {bad[0]!r} is no annotation key" if bad else ""


__all__ = ["EnvVar", "Provider", "ProviderConfigError", "TokenAttributes", "load"]

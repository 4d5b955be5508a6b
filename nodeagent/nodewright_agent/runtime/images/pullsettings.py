"""The agent's settings about pulling images, a part of AgentConfig. Names as in KubeletConfiguration, in snake case."""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

VerificationPolicy = Literal[
    "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"
]


class PullSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Credentials of the node, the check of Pods' credentials, and how many pulls there may be."""

    image_credential_files: list[str] = []
    """docker's config.json, for every Pod; the first that can be read. Empty: ``config.json`` in ``state_dir``."""
    image_credential_provider_config: str = ""
    """A CredentialProviderConfig, or a folder of them; needs ``image_credential_provider_bin_dir``."""
    image_credential_provider_bin_dir: str = ""
    image_pull_credentials_verification_policy: VerificationPolicy = "NeverVerifyPreloadedImages"
    """Whether a Pod may use an image that is here already: who had to prove what to get it is remembered."""
    preloaded_images_verification_allowlist: list[str] = []
    """Images that NeverVerifyAllowlistedImages gives to everybody: without tag; ``host/path/*`` is all below."""
    serialize_image_pulls: bool = False
    """One pull after the other. kubelet's default is true."""
    max_parallel_image_pulls: int = 0
    """0: any number."""
    registry_pull_qps: int = 5
    """Pulls that may begin in a second, above ``registry_burst`` at once; the others wait. 0: no limit."""
    registry_burst: int = 10

    @property
    def parallel_pulls(self) -> int:
        """How many images are pulled at a time; 0: any number."""
        return 1 if self.serialize_image_pulls else self.max_parallel_image_pulls


def configz(settings: PullSettings) -> dict[str, Any]:
    """The settings under kubelet's names, as far as KubeletConfiguration has them."""
    return {
        "serializeImagePulls": settings.serialize_image_pulls,
        "maxParallelImagePulls": settings.parallel_pulls or None,
        "registryPullQPS": settings.registry_pull_qps,
        "registryBurst": settings.registry_burst,
        "imagePullCredentialsVerificationPolicy": settings.image_pull_credentials_verification_policy,
        "preloadedImagesVerificationAllowlist": settings.preloaded_images_verification_allowlist,
    }


def check(settings: PullSettings) -> list[str]:
    """Return what is wrong, one text per field. Files are not looked at: whoever only cleans up may not have them."""
    problems = [
        f"image_credential_files[{index}]: {path!r} is not an absolute path"
        for index, path in enumerate(settings.image_credential_files)
        if not os.path.isabs(path)
    ]
    if settings.max_parallel_image_pulls < 0:
        problems.append(f"max_parallel_image_pulls: {settings.max_parallel_image_pulls} is negative")
    if settings.serialize_image_pulls and settings.max_parallel_image_pulls > 1:
        problems.append("max_parallel_image_pulls: is above 1, with serialize_image_pulls")
    if settings.registry_pull_qps < 0:
        problems.append(f"registry_pull_qps: {settings.registry_pull_qps} is negative")
    if settings.registry_burst < 1:
        problems.append(f"registry_burst: {settings.registry_burst} is not positive")
    return [*problems, *_check_allowlist(settings), *_check_providers(settings)]


def _check_allowlist(settings: PullSettings) -> list[str]:
    policy = settings.image_pull_credentials_verification_policy
    patterns = settings.preloaded_images_verification_allowlist
    if patterns and policy != "NeverVerifyAllowlistedImages":
        return [f"preloaded_images_verification_allowlist: is for NeverVerifyAllowlistedImages, the policy is {policy}"]
    if not patterns:
        return []
    from nodewright_agent.runtime.images.access import Allowlist  # late: it is not for those who only read settings

    problems = []
    for index, pattern in enumerate(patterns):
        try:
            Allowlist([pattern])
        except ValueError as error:
            problems.append(f"preloaded_images_verification_allowlist[{index}]: {error}")
    return problems


def _check_providers(settings: PullSettings) -> list[str]:
    config, programs = settings.image_credential_provider_config, settings.image_credential_provider_bin_dir
    if bool(config) != bool(programs):
        return ["image_credential_provider_config, image_credential_provider_bin_dir: give both or none"]
    return [
        f"{field}: {path!r} is not an absolute path"
        for field, path in (
            ("image_credential_provider_config", config),
            ("image_credential_provider_bin_dir", programs),
        )
        if path and not os.path.isabs(path)
    ]

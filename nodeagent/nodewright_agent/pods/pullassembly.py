"""Builds the image store and the puller of a node from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nodewright.kube.client import Client
from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.pulling import ImagePuller, Images, Source
from nodewright_agent.pods.pullkeys import Keyring, Providers
from nodewright_agent.pods.pullmetrics import PullMetrics
from nodewright_agent.runtime.images.access import Verification
from nodewright_agent.runtime.images.credfiles import CredentialFiles
from nodewright_agent.runtime.images.gate import Gate, Rate
from nodewright_agent.runtime.images.store import ImageStore


def store(config: AgentConfig) -> ImageStore:
    """Open the store. Raises ImageError."""
    return ImageStore(Path(config.image_root), gate=gate(config), user=f"agent {config.node_name}")


def gate(config: AgentConfig) -> Gate:
    """What holds pulls up."""
    return Gate(config.parallel_pulls, Rate(config.registry_pull_qps, config.registry_burst))


def puller(
    config: AgentConfig,
    images: Images,
    known: Callable[[], int],
    client: Client,
    events: Events,
    clock: Clock,
    sources: Sequence[Source],
) -> ImagePuller:
    """Make the puller; ``known`` counts the records of who may use which image.

    Raises ``ConfigError`` when there is something wrong with the credential providers.
    """
    metrics = PullMetrics(known)
    paths = [Path(path) for path in config.image_credential_files] or [config.state / "config.json"]
    keyring = Keyring(client, events, CredentialFiles(paths), _providers(config, metrics))
    verification = Verification(
        config.image_pull_credentials_verification_policy, config.preloaded_images_verification_allowlist
    )
    return ImagePuller(images, keyring, events, clock, sources, verification, metrics)


def _providers(config: AgentConfig, metrics: PullMetrics) -> Providers | None:
    if not config.image_credential_provider_config:
        return None
    from nodewright_agent.runtime.images import providerconfig, providers  # late: most nodes have none

    programs = Path(config.image_credential_provider_bin_dir)
    try:
        found = providerconfig.load(Path(config.image_credential_provider_config), programs)
    except providerconfig.ProviderConfigError as error:
        raise ConfigError(f"image_credential_provider_config: {error}") from None
    return providers.Providers(found, programs, metrics.plugin_ran)

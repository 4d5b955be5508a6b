"""The volume plugins, by the JSON name of the source. A new kind is one file and one line here."""

from __future__ import annotations

from nodewright.kube.api.volumes import Volume
from nodewright_agent.pods.volumes.emptydir import EmptyDir
from nodewright_agent.pods.volumes.files import Files
from nodewright_agent.pods.volumes.hostpath import HostPath
from nodewright_agent.pods.volumes.imagevolumes import ImageVolume
from nodewright_agent.pods.volumes.persistent import Claim
from nodewright_agent.pods.volumes.plugin import Plugin
from nodewright_agent.pods.volumes.unsupported import why_not

PLUGINS: dict[str, Plugin] = {
    "emptyDir": EmptyDir(),
    "hostPath": HostPath(),
    "configMap": Files("configmap", memory=False),
    "secret": Files("secret", memory=True),
    "downwardAPI": Files("downward-api", memory=True),
    "projected": Files("projected", memory=True),
    "image": ImageVolume(),
    "persistentVolumeClaim": Claim(),
    "ephemeral": Claim(),
}


def plugin_for(volume: Volume) -> Plugin:
    """The plugin of a volume; raises VolumeError for kinds that there is none for."""
    plugin = PLUGINS.get(volume.source)
    if plugin is None:
        raise why_not(volume.source, volume)
    return plugin

"""Which changes of storage objects wake waiting Pods."""

import pytest

from nodewright.scheduler import storage_events as events
from nodewright.scheduler.events import Event
from nodewright.scheduler.registry import DEFAULT_PLUGINS
from support.storage_builders import (
    make_attachment,
    make_capacity,
    make_claim,
    make_class,
    make_csi_node,
    make_driver,
    make_volume,
)

NONE = Event.NONE


@pytest.mark.parametrize(
    ("judge", "old", "new", "kinds"),
    [
        (events.claim_events, None, make_claim("c"), Event.CLAIM),
        (events.claim_events, make_claim("c"), None, NONE),
        (events.claim_events, make_claim("c"), make_claim("c"), NONE),
        (events.claim_events, make_claim("c"), make_claim("c", volume="v"), Event.CLAIM),
        (events.claim_events, make_claim("c", selected="n"), make_claim("c"), Event.CLAIM),
        (events.claim_events, make_claim("c"), make_claim("c", owner="u"), Event.CLAIM),
        (events.volume_events, None, make_volume("v"), Event.VOLUME),
        (events.volume_events, make_volume("v"), None, NONE),
        (events.volume_events, make_volume("v"), make_volume("v"), NONE),
        (events.volume_events, make_volume("v", phase="Pending"), make_volume("v"), Event.VOLUME),
        (events.volume_events, make_volume("v"), make_volume("v", labels={"a": "b"}), Event.VOLUME),
        (events.class_events, None, make_class(), Event.STORAGE_CLASS),
        (events.class_events, make_class(), make_class(), NONE),
        (events.class_events, make_class(), None, NONE),
        (
            events.class_events,
            make_class("a", "p", "m", {"zone": ["x"]}),
            make_class("a", "p", "m"),
            Event.STORAGE_CLASS,
        ),
        (events.csi_node_events, None, make_csi_node("n"), Event.CSI_NODE),
        (events.csi_node_events, make_csi_node("n", csi=1), make_csi_node("n", csi=2), Event.CSI_NODE),
        (events.csi_node_events, make_csi_node("n", csi=2), make_csi_node("n", csi=1), NONE),
        (events.csi_node_events, make_csi_node("n", csi=2), make_csi_node("n", csi=None), Event.CSI_NODE),
        (events.csi_node_events, make_csi_node("n"), None, NONE),
        (events.csi_driver_events, None, make_driver("csi"), NONE),
        (events.csi_driver_events, make_driver("csi"), make_driver("csi", False), Event.CSI_DRIVER),
        (events.csi_driver_events, make_driver("csi", False), make_driver("csi"), NONE),
        (events.csi_driver_events, make_driver("csi"), None, Event.CSI_DRIVER),
        (events.capacity_events, None, make_capacity("c", "wait", {}, "1Gi"), Event.STORAGE_CAPACITY),
        (
            events.capacity_events,
            make_capacity("c", "wait", {}, "1Gi"),
            make_capacity("c", "wait", {}, "2Gi"),
            Event.STORAGE_CAPACITY,
        ),
        (
            events.capacity_events,
            make_capacity("c", "wait", {}, None),
            make_capacity("c", "wait", {}, "0"),
            Event.STORAGE_CAPACITY,
        ),
        (events.capacity_events, make_capacity("c", "wait", {}, "2Gi"), make_capacity("c", "wait", {}, "1Gi"), NONE),
        (
            events.capacity_events,
            make_capacity("c", "wait", {}, "2Gi", "1Gi"),
            make_capacity("c", "wait", {}, "3Gi", "1Gi"),
            NONE,
        ),
        (events.capacity_events, make_capacity("c", "wait", {}, "2Gi"), None, NONE),
        (events.attachment_events, None, make_attachment("a", "n", "v"), NONE),
        (events.attachment_events, make_attachment("a", "n", "v"), None, Event.ATTACHMENT_DELETE),
    ],
)
def test_changes(judge, old, new, kinds):
    assert judge(old, new) == kinds


def test_the_order_of_the_plugins_and_what_wakes_those_they_rejected():
    names = [cls.name for cls in DEFAULT_PLUGINS]
    ours = ["VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone"]
    start = names.index("NodeResourcesFit") + 1
    assert names[start : start + 4] == ours
    wakes = {cls.name: cls.events for cls in DEFAULT_PLUGINS}
    assert wakes["VolumeRestrictions"] == Event.POD_DELETE | Event.NODE_ADD | Event.CLAIM
    assert wakes["NodeVolumeLimits"] == Event.CSI_NODE | Event.POD_DELETE | Event.CLAIM | Event.ATTACHMENT_DELETE
    assert Event.VOLUME in wakes["VolumeBinding"]
    assert Event.VOLUME in wakes["VolumeZone"]

"""A Pod template as a whole, by the rules that all controllers share. Pure. Upstream: ValidatePodTemplateSpec.

Only what a schema cannot express and people get wrong; the rest of Pod validation is left to the dry run, which asks
the API server itself. These checks stand where it cannot be asked, and name all their faults at once.
"""

from __future__ import annotations

from nodewright.controllers.admission.containers import check_containers, check_volumes
from nodewright.controllers.admission.fields import Json, child
from nodewright.controllers.admission.labels import check_annotations, check_labels
from nodewright.controllers.admission.placement import check_placement
from nodewright.framework.webhook.review import Cause


def check_template(template: Json, path: str) -> list[Cause]:
    """Faults of a Pod template."""
    meta, spec = child(template, "metadata"), child(template, "spec")
    return [
        # upstream's paths leave `metadata` out here
        *check_labels(child(meta, "labels"), f"{path}.labels"),
        *check_annotations(child(meta, "annotations"), f"{path}.annotations"),
        *check_volumes(spec, f"{path}.spec"),
        *check_containers(spec, f"{path}.spec"),
        *check_placement(spec, f"{path}.spec"),
    ]

"""How kopf is set up for this project."""

from __future__ import annotations

from nodewright.framework.lean import kopf

PREFIX = "nodewright.dev"


def kopf_settings(exit_timeout: float | None = None) -> kopf.OperatorSettings:
    """kopf's settings for this project: our own prefix and finalizer, no event posting, prompt end."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{PREFIX}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=PREFIX)
    settings.posting.enabled = False  # our recorder aggregates and limits; kopf's does not
    settings.process.ultimate_exiting_timeout = exit_timeout
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    return settings

"""What pulling images has come to: a part of /metrics, under kubelet's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from nodewright_agent.runtime.images.access import Verdict
from nodewright_agent.server.exposition import family, labels
from nodewright_agent.server.nodemetrics import Histogram

PULL_BUCKETS = (1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
PLUGIN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_REQUEST = ("pull_policy", "present_locally", "pull_required")
_MB, _GB = 1 << 20, 1 << 30
_SIZES = (
    (100 * _GB, "GT100GB"), (60 * _GB, "60GB-100GB"), (40 * _GB, "40GB-60GB"), (30 * _GB, "30GB-40GB"),
    (20 * _GB, "20GB-30GB"), (10 * _GB, "10GB-20GB"), (5 * _GB, "5GB-10GB"), (_GB, "1GB-5GB"),
    (500 * _MB, "500MB-1GB"), (100 * _MB, "100MB-500MB"), (10 * _MB, "10MB-100MB"), (0, "0-10MB"),
)  # fmt: skip


def size_label(size: int) -> str:
    """The label of an image's size in bytes (upstream's GetImageSizeBucket). Pure."""
    return next((label for bound, label in _SIZES if size > bound), "N/A")


class PullMetrics:
    """Counts since the agent started."""

    def __init__(self, records: Callable[[], int] = lambda: 0) -> None:
        """``records`` counts the images that have a record of who may use them."""
        self._records = records
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._checks: Counter[Verdict] = Counter()
        self._pulls: dict[str, Histogram] = {}
        self._plugins: dict[str, Histogram] = {}
        self._plugin_errors: Counter[str] = Counter()

    def requested(self, policy: str, present: bool | None, required: bool | None) -> None:
        """Count a container that wanted its image; None: an error came before that was known."""
        self._requests[policy.lower(), _word(present), _word(required)] += 1

    def checked(self, verdict: Verdict) -> None:
        """Count a check of a Pod's credentials."""
        self._checks[verdict] += 1

    def pulled(self, size: int, seconds: float) -> None:
        """Count a pull that succeeded: bytes of the image, seconds with waiting."""
        self._pulls.setdefault(size_label(size), Histogram(PULL_BUCKETS)).observe(seconds)

    def plugin_ran(self, name: str, seconds: float, failed: bool) -> None:
        """Count a run of a credential provider."""
        self._plugins.setdefault(name, Histogram(PLUGIN_BUCKETS)).observe(seconds)
        if failed:
            self._plugin_errors[name] += 1

    def text(self) -> str:
        """Write the families."""
        lines = family("kubelet_image_manager_ensure_image_requests_total",
                       "[ALPHA] Number of ensure-image requests processed by the kubelet.", "counter",
                       [(labels(dict(zip(_REQUEST, key, strict=True))), str(count))
                        for key, count in sorted(self._requests.items())])  # fmt: skip
        lines += family("kubelet_imagemanager_image_mustpull_checks_total",
                        "[ALPHA] Counter for how many times kubelet checked whether credentials need to be re-verified "
                        "to access an image", "counter",
                        [(labels({"result": verdict.value}), str(count))
                         for verdict, count in sorted(self._checks.items(), key=lambda one: one[0].value)])  # fmt: skip
        lines += family("kubelet_imagemanager_ondisk_pulledrecords",
                        "[ALPHA] Number of ImagePulledRecords stored on disk.", "gauge",
                        [("", str(self._records()))])  # fmt: skip
        lines += family("kubelet_credential_provider_plugin_errors",
                        "[ALPHA] Number of errors from credential provider plugin", "counter",
                        [(labels({"plugin_name": name}), str(count))
                         for name, count in sorted(self._plugin_errors.items())])  # fmt: skip
        lines += _histogram("kubelet_image_pull_duration_seconds", "[ALPHA] Duration in seconds to pull an image.",
                            "image_size_in_bytes", self._pulls)  # fmt: skip
        lines += _histogram("kubelet_credential_provider_plugin_duration",
                            "[ALPHA] Duration of execution in seconds for credential provider plugin",
                            "plugin_name", self._plugins)  # fmt: skip
        return "\n".join(lines) + "\n"


def _word(known: bool | None) -> str:
    return "unknown" if known is None else str(known).lower()


def _histogram(name: str, about: str, label: str, by_label: Mapping[str, Histogram]) -> Iterable[str]:
    samples = [line for value, one in sorted(by_label.items()) for line in one.samples(name, {label: value})]
    return [f"# HELP {name} {about}", f"# TYPE {name} histogram", *samples] if samples else []

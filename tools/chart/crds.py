"""Copy the CustomResourceDefinitions into the Helm chart, wrapped so that values decide over them.

    python tools/chart/crds.py           write charts/nodewright/templates/crds
    python tools/chart/crds.py --check   say what differs, exit code 1

Helm's own crds/ folder would install them once and never change them again. A unit test makes the same check.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "operator/nodewright/crds"
TARGET = ROOT / "charts/nodewright/templates/crds"

_HEADER = """\
{{- if .Values.crds.install }}
{{- /* Copied from operator/nodewright/crds by tools/chart/crds.py; do not edit. */}}
"""
_METADATA = """\
metadata:
  labels:
    {{- include "nodewright.labels" (dict "root" . "component" "crds") | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
_FOOTER = "{{- end }}\n"


def wrapped(manifest: str) -> str:
    """The template for one definition. Raises ValueError where the definition has metadata that would be doubled."""
    lines = [line for line in manifest.splitlines(keepends=True) if not line.startswith("#")]
    body = "".join(lines).replace("{{", '{{ "{{" }}')
    head, found, rest = body.partition("\nmetadata:\n")
    if not found:
        raise ValueError("no metadata at the first level")
    metadata = rest.partition("\nspec:")[0]
    for key in ("labels:", "annotations:"):
        if f"  {key}" in metadata:
            raise ValueError(f"metadata has {key} already")
    return f"{_HEADER}{head}\n{_METADATA}{rest}{_FOOTER}"


def wanted() -> dict[Path, str]:
    """Every file of the chart's folder and what it should hold."""
    found = sorted(SOURCE.glob("*.yaml"))
    if not found:
        raise FileNotFoundError(f"no definitions in {SOURCE}")
    return {TARGET / path.name: wrapped(path.read_text()) for path in found}


def differences() -> list[str]:
    """One line per file that is missing, superfluous or not the same."""
    files = wanted()
    lines = [
        f"{path.relative_to(ROOT)}: {'differs' if path.exists() else 'is missing'}"
        for path, text in files.items()
        if not path.exists() or path.read_text() != text
    ]
    return lines + [
        f"{path.relative_to(ROOT)}: has no source" for path in sorted(TARGET.glob("*.yaml")) if path not in files
    ]


def main() -> int:
    """Write, or with --check compare."""
    if sys.argv[1:] == ["--check"]:
        found = differences()
        sys.stdout.writelines(f"{line}; run python tools/chart/crds.py\n" for line in found)
        return 1 if found else 0
    files = wanted()
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in TARGET.glob("*.yaml"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

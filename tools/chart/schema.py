"""Write the agent's settings into the Helm chart's values.schema.json, so that a misspelt one is refused by Helm.

    python tools/chart/schema.py           write `agent.config`; the rest of the file is written by hand
    python tools/chart/schema.py --check   say whether it differs, exit code 1

Run it with Nodewright importable (.venv/bin/python). A unit test makes the same check.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nodewright_agent.config import AgentConfig

SCHEMA = Path(__file__).resolve().parents[2] / "charts/nodewright/values.schema.json"
_SIMPLE = {str: "string", bool: "boolean", int: "integer", float: "number"}


def of_type(kind: Any) -> dict[str, Any]:
    """JSON schema of a setting's type. Raises TypeError for one that no setting has had so far."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": of_type(arguments[0])}
    if origin is dict:
        return {"$ref": "#/$defs/labels"}
    if origin in (Union, types.UnionType):
        return {"type": ["string", "null"]}
    if hasattr(kind, "__struct_fields__"):
        return of_struct(kind)
    raise TypeError(f"no schema for {kind}")


def of_struct(struct: Any) -> dict[str, Any]:
    """JSON schema of a struct, which takes its own fields and no others."""
    hints = get_type_hints(struct)
    fields = {name: of_type(hints[name]) for name in struct.__struct_fields__}
    return {"type": "object", "additionalProperties": False, "properties": fields}


def rendered(text: str) -> str:
    """The schema with the agent's settings as they are now."""
    schema = json.loads(text)
    schema["properties"]["agent"]["properties"]["config"] = of_struct(AgentConfig)
    return json.dumps(schema, indent=2) + "\n"


def main() -> int:
    """Write, or with --check compare."""
    wanted = rendered(SCHEMA.read_text())
    if sys.argv[1:] == ["--check"]:
        if SCHEMA.read_text() == wanted:
            return 0
        sys.stdout.write(
            "values.schema.json lacks a setting of the agent; run .venv/bin/python tools/chart/schema.py\n"
        )
        return 1
    SCHEMA.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())

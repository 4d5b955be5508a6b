"""kopf without the client libraries that it imports, for type checks only, where they are installed.

The official client alone costs 80 MB and more than a second. All of Nodewright imports kopf from here.
"""

from __future__ import annotations

import sys

_absent = [name for name in ("kubernetes", "kubernetes_asyncio", "pykube") if name not in sys.modules]
for _name in _absent:
    sys.modules[_name] = None  # type: ignore[assignment]  # makes `import` fail, as if it were not installed
try:
    import kopf as kopf
finally:
    for _name in _absent:
        del sys.modules[_name]

__all__ = ["kopf"]

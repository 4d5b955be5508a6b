"""An API server in memory, small but strict, and clients of it whose writes go wrong on purpose.

It keeps what a controller relies on: resourceVersions, UIDs as preconditions, generateName, generations, status as a
subresource, no event for a change that changes nothing, graceful deletion, finalizers. Everything that happens is in
`log`, one list per kind of object: watches are played from there, as late and in as odd an order between kinds as a
test likes. A `FakeClient` is a `Client` with this server in place of the network, so real encoding and decoding run.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ServerUnavailable, TooManyRequests, from_response
from nodewright.kube.quickpost import NO_ANSWER, Answer

Object = dict[str, Any]

_PATH = re.compile(r"/(?:api|apis/[^/]+)/v[^/]+(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<rest>.+))?$")
_MERGE_KEYS = {"ownerReferences": "uid", "containers": "name", "initContainers": "name"}
_REASONS = {404: "NotFound", 409: "Conflict", 422: "Invalid", 500: "InternalError"}


class Refused(Exception):
    """What the server answers with an error."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason or _REASONS[status]


class Write(msgspec.Struct):
    """A change of an object: None before a creation and after a removal. `client` is None for the test itself."""

    client: FakeClient | None
    verb: str
    plural: str
    before: Object | None
    after: Object | None


class FakeServer:
    """The truth. `now` gives the time as RFC 3339; `on_write` is told of every change, before anybody else."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self._numbers = itertools.count(1)
        self.version = 1
        self.objects: dict[str, dict[str, Object]] = defaultdict(dict)  # plural -> key -> object
        self.log: dict[str, list[tuple[int, str, bytes]]] = defaultdict(list)
        self.on_write: Callable[[Write], None] = lambda _write: None
        self.writes = 0  # that changed something

    # -- requests ----------------------------------------------------------------------------------------------------

    def handle(self, client: FakeClient | None, method: str, path: str, body: bytes, kind: str = "") -> Object:
        """Answer a request; raises Refused."""
        found = _PATH.match(path)
        assert found is not None, path
        namespace, plural = found["ns"] or "", found["plural"]
        name, _, subresource = (found["rest"] or "").partition("/")
        key = f"{namespace}/{name}" if namespace else name
        sent = msgspec.json.decode(body) if body else {}
        if method == "GET" and not name:
            items = [o for o in self.objects[plural].values() if not namespace or _meta(o)["namespace"] == namespace]
            return {"metadata": {"resourceVersion": str(self.version)}, "items": items}
        if method == "POST":
            return self._create(client, plural, namespace, sent)
        old = self.objects[plural].get(key)
        if old is None:
            raise Refused(404, f'{plural} "{name}" not found')
        if method == "GET":
            return old
        if method == "DELETE":
            return self._delete(client, plural, key, old, sent)
        assert method == "PATCH"
        return self._patch(client, plural, key, old, sent, kind, subresource)

    def _create(self, client: FakeClient | None, plural: str, namespace: str, sent: Object) -> Object:
        obj = copy.deepcopy(sent)
        meta = obj["metadata"]
        if namespace:
            meta["namespace"] = namespace
        if not meta.get("name"):
            meta["name"] = f"{meta['generateName']}{next(self._numbers):05}"
        key = f"{namespace}/{meta['name']}" if namespace else meta["name"]
        if key in self.objects[plural]:
            raise Refused(409, f'{plural} "{meta["name"]}" already exists', "AlreadyExists")
        meta |= {"uid": f"uid-{next(self._numbers)}", "creationTimestamp": self._now(), "generation": 1}
        if plural == "pods":
            obj["status"] = {"phase": "Pending"}
        return self._store(client, "create", plural, key, None, obj)

    def _patch(
        self, client: FakeClient | None, plural: str, key: str, old: Object, sent: Any, kind: str, subresource: str
    ) -> Object:
        for field in ("uid", "resourceVersion"):
            wanted = (sent.get("metadata") or {}).get(field)
            if wanted is not None and wanted != _meta(old)[field]:
                raise Refused(409, f"Precondition failed: {field} {wanted}, and it is {_meta(old)[field]}")
        new = _merged(old, sent, strategic=kind == PatchType.STRATEGIC)
        if subresource == "status":
            new = {**old, "status": new.get("status")}
        elif "status" in old:
            new["status"] = old["status"]
        new["metadata"] |= {f: _meta(old)[f] for f in ("uid", "resourceVersion", "generation")}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": _meta(old)["generation"] + 1}
        if _meta(new).get("deletionTimestamp") and not _meta(new).get("finalizers") and plural != "pods":
            return self._remove(client, plural, key, new)
        return self._store(client, "patch", plural, key, old, new)

    def _delete(self, client: FakeClient | None, plural: str, key: str, old: Object, options: Object) -> Object:
        for field, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            wanted, found = (options.get("preconditions") or {}).get(field), _meta(old)[field]
            if wanted is not None and wanted != found:
                text = f"Precondition failed: {name} in precondition: {wanted}, in object meta: {found}"
                raise Refused(409, text)
        ended = (old.get("status") or {}).get("phase") in ("Failed", "Succeeded")
        graceful = plural == "pods" and old["spec"].get("nodeName") and not ended
        if not graceful and not _meta(old).get("finalizers"):
            return self._remove(client, plural, key, old)
        if _meta(old).get("deletionTimestamp"):
            return old
        new = {**old, "metadata": {**_meta(old), "deletionTimestamp": self._now()}}
        return self._store(client, "delete", plural, key, old, new)

    # -- what happens ------------------------------------------------------------------------------------------------

    def _store(
        self, client: FakeClient | None, verb: str, plural: str, key: str, old: Object | None, new: Object
    ) -> Object:
        new = {**new, "metadata": {**_meta(new), "resourceVersion": str(self._advance())}}
        self.on_write(Write(client, verb, plural, old, new))
        self.objects[plural][key] = new
        self._note(plural, "ADDED" if old is None else "MODIFIED", new)
        return new

    def _remove(self, client: FakeClient | None, plural: str, key: str, last: Object) -> Object:
        last = {**last, "metadata": {**_meta(last), "resourceVersion": str(self._advance())}}
        self.on_write(Write(client, "delete", plural, last, None))
        del self.objects[plural][key]
        self._note(plural, "DELETED", last)
        return last

    def _advance(self) -> int:
        self.version += 1
        self.writes += 1
        return self.version

    def _note(self, plural: str, type_: str, obj: Object) -> None:
        self.log[plural].append((self.version, type_, msgspec.json.encode(obj)))

    # -- the hands of kubelets, people and other controllers -----------------------------------------------------------

    def do(self, method: str, path: str, body: Any = None, kind: str = PatchType.MERGE) -> Object:
        """A request of the test's own."""
        return self.handle(None, method, path, msgspec.json.encode(body) if body is not None else b"", kind)

    def finish(self, plural: str, key: str) -> None:
        """Take out an object that was only marked as being deleted, as a kubelet does at the end of a pod."""
        self._remove(None, plural, key, self.objects[plural][key])


def _meta(obj: Object) -> Object:
    meta: Object = obj["metadata"]
    return meta


def _merged(old: Any, sent: Any, *, strategic: bool) -> Any:
    if not isinstance(sent, dict):
        return sent
    out = dict(old) if isinstance(old, dict) else {}
    for name, value in sent.items():
        if value is None:
            out.pop(name, None)
        elif strategic and isinstance(value, list) and name in _MERGE_KEYS:
            out[name] = _merged_list(out.get(name) or [], value, _MERGE_KEYS[name])
        else:
            out[name] = _merged(out.get(name), value, strategic=strategic)
    return out


def _merged_list(old: list[Any], sent: list[Any], key: str) -> list[Any]:
    items = {item[key]: item for item in old}
    for item in sent:
        if item.get("$patch") == "delete":
            items.pop(item[key], None)
        else:
            items[item[key]] = _merged(items.get(item[key], {}), item, strategic=True)
    return list(items.values())


# --- clients -------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process is no more. No `except Exception` of the code under test sees this."""


class Fault(StrEnum):
    """What becomes of a write."""

    CONFLICT = "409"
    BUSY = "429"
    BROKEN = "500, nothing done"
    CUT = "cut before the server heard of it"
    LOST = "done, the answer is lost"
    SLOW = "no answer, and done some time later"
    DIE_BEFORE = "the process dies, the server never hears of it"
    DIE_AFTER = "the process dies, the write is done"
    DIE_LATE = "the process dies, the write is done some time later"


class FakeClient(Client):
    """A client of a FakeServer. `faults` says what becomes of its n-th write from now (0 is the next)."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.faults: dict[int, Fault] = {}
        self.late: list[Callable[[], None]] = []
        self.dead = False
        self.is_landing = False  # a late write takes effect just now
        self.sent = 0  # writes
        self._pending: Fault | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "",
        accept: str = "",
        timeout: float | None = None,
    ) -> bytes:
        await asyncio.sleep(0)
        if self.dead:
            raise Died
        if method != "GET":
            self.sent += 1
            self._meet(self._next_fault(), method, path, body or b"", content_type)
        try:
            answer = msgspec.json.encode(self.server.handle(self, method, path, body or b"", content_type))
        except Refused as error:
            raise from_response(error.status, _status(error), None, f"{method} {path}") from None
        if method != "GET":
            self._after(method, path)
        return answer

    def quick_poster(self, connections: int) -> Any:
        """The way of many small writes, which is this one."""
        return _Quick(self)

    def _next_fault(self) -> Fault | None:
        fault = self.faults.pop(0, None)
        self.faults = {n - 1: f for n, f in self.faults.items()}
        self._pending = fault if fault in (Fault.LOST, Fault.DIE_AFTER) else None
        return fault

    def _meet(self, fault: Fault | None, method: str, path: str, body: bytes, kind: str) -> None:
        what = f"{method} {path}"
        if fault in (Fault.SLOW, Fault.DIE_LATE):
            self.late.append(lambda: self._land(method, path, body, kind))
        if fault in (Fault.DIE_BEFORE, Fault.DIE_LATE):
            self.dead = True
            raise Died
        if fault is Fault.CONFLICT:
            raise from_response(409, _status(Refused(409, "injected")), None, what)
        if fault is Fault.BUSY:
            raise TooManyRequests(429, "TooManyRequests", f"{what}: injected")
        if fault is Fault.BROKEN:
            raise from_response(500, _status(Refused(500, "injected")), None, what)
        if fault in (Fault.CUT, Fault.SLOW):
            raise ServerUnavailable(0, "ServerUnavailable", f"{what}: injected")

    def _after(self, method: str, path: str) -> None:
        if self._pending is Fault.DIE_AFTER:
            self.dead = True
            raise Died
        if self._pending is Fault.LOST:
            raise ServerUnavailable(0, "ServerUnavailable", f"{method} {path}: injected")

    def _land(self, method: str, path: str, body: bytes, kind: str) -> None:
        self.is_landing = True
        with contextlib.suppress(Refused):  # nobody is there to be told
            self.server.handle(self, method, path, body, kind)
        self.is_landing = False


class _Quick:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, body: bytes, *, accept: str = "", **_: Any) -> Answer:
        try:
            return Answer(200, await self._client.request(method, path, body=body))
        except ServerUnavailable as error:
            return Answer(error.status or NO_ANSWER, b"{}")
        except TooManyRequests:
            return Answer(429)
        except Exception as error:  # an ApiError of another status
            status = getattr(error, "status", 500)
            return Answer(status, _status(Refused(status, str(error), getattr(error, "reason", ""))))


def _status(error: Refused) -> bytes:
    return msgspec.json.encode(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": error.reason,
            "code": error.status,
            "message": str(error),
        }
    )

"""The protobuf classes of CRI, made from ``messages`` at import: ``wire.PodSandboxConfig(hostname="a")``."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from nodewright_agent.cri.messages import ENUMS, MESSAGES, SIGNALS

PACKAGE = "runtime.v1"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def file_descriptor() -> Any:
    """The descriptor of all messages (a ``FileDescriptorProto``)."""
    file = descriptor_pb2.FileDescriptorProto(name="nodewright/cri.proto", package=PACKAGE, syntax="proto3")
    enums = dict(_enums())
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for line in MESSAGES.split("\n"):
        if line:
            _message(file.message_type.add(), line.split(), enums)
    return file


def signal_names() -> list[str]:
    """The values of the enum ``Signal``; the first is "as the image says"."""
    lower = ["SIGRTMIN", *(f"SIGRTMINPLUS{number}" for number in range(1, 16))]
    upper = [*(f"SIGRTMAXMINUS{number}" for number in range(14, 0, -1)), "SIGRTMAX"]
    return ["RUNTIME_DEFAULT", *(f"SIG{name}" for name in SIGNALS.split()), *lower, *upper]


def signal_name(number: int) -> str:
    """A signal as images and Pods spell it, ``SIGRTMIN+3``; empty: none, or one that is not known here."""
    names = signal_names()
    return names[number].replace("PLUS", "+").replace("MINUS", "-") if 0 < number < len(names) else ""


def signal_number(name: str) -> int:
    """The enum's number of a signal's name, with or without SIG; 0: it has none."""
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    names, spelled = signal_names(), full.replace("+", "PLUS").replace("-", "MINUS")
    return names.index(spelled) if spelled in names else 0


def _enums() -> list[tuple[str, list[str]]]:
    words = [line.split() for line in ENUMS.split("\n") if line]
    return [*((name, values) for name, *values in words), ("Signal", signal_names())]


def _message(message: Any, words: list[str], enums: dict[str, list[str]]) -> None:
    message.name = words[0]
    for word in words[1:]:
        name, _, rest = word.partition("=")
        number, _, kind = rest.partition(":")
        field = message.field.add(name=name, number=int(number), json_name=name)
        repeated = kind.startswith("*") or kind == "map"
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        kind = kind.removeprefix("*") or "string"
        if kind == "map":
            kind = _map_entry(message, name)
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{kind}"


def _map_entry(message: Any, field: str) -> str:
    entry = message.nested_type.add(name="".join(part.capitalize() for part in field.split("_")) + "Entry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    return f"{message.name}.{entry.name}"


def _classes() -> dict[str, Any]:
    file, pool = file_descriptor(), descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: dict[str, Any] = {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
        for message in file.message_type
    }
    for enum in file.enum_type:
        found.update({value.name: value.number for value in enum.value})
    return found


_CLASSES = _classes()


def __getattr__(name: str) -> Any:
    """A message class, or the number of an enum's value, by its name in CRI."""
    try:
        return _CLASSES[name]
    except KeyError:
        raise AttributeError(f"CRI has no {name}") from None

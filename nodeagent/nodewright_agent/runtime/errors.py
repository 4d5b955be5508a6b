"""Errors of the runtime, named after the waiting reasons that users of Kubernetes know."""

from __future__ import annotations


class ContainerRuntimeError(Exception):
    """A runtime operation failed. ``reason`` is the container's waiting reason; the text is for people."""

    reason = "ContainerRuntimeError"


class CreateContainerError(ContainerRuntimeError):
    """The container could not be prepared: root file system, user, spec, mounts."""

    reason = "CreateContainerError"


class RunContainerError(ContainerRuntimeError):
    """The OCI runtime refused to start the container's process (kubelet: terminated as StartError, exit code 128)."""

    reason = "RunContainerError"


class SandboxError(ContainerRuntimeError):
    """The pod's namespaces could not be made."""

    reason = "CreatePodSandboxError"


class ContainerNotFound(ContainerRuntimeError):
    """There is no container of that id."""

    reason = "ContainerNotFound"


class ContainerStateError(ContainerRuntimeError):
    """The operation does not fit the container's state (start twice, exec in an exited one, delete a running one)."""

    reason = "ContainerStateError"


class ExecError(ContainerRuntimeError):
    """A command could not be run inside a container at all (no such file, no such user, container gone)."""

    reason = "ExecError"


class RuntimeUnavailable(ContainerRuntimeError):
    """The host lacks something that the runtime needs: runc, conmon, cgroups, a kernel feature."""

    reason = "RuntimeUnavailable"

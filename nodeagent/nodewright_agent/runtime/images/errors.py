"""Errors of the image store. `reason` is the waiting reason that Kubernetes users know from `kubectl get pods`."""


class ImageError(Exception):
    """Any failure that concerns an image; `str(error)` is the sentence for events and conditions."""

    reason = "ImagePullError"


class InvalidImageName(ImageError):
    """The name cannot be parsed; retrying is pointless until the Pod changes."""

    reason = "InvalidImageName"


class ErrImagePull(ImageError):
    """Fetching, verifying or unpacking failed; the kubelet retries with ImagePullBackOff."""

    reason = "ErrImagePull"


class ImageNotFound(ErrImagePull):
    """The registry has no such repository, tag or digest (or does not admit that it has)."""


class Unauthorized(ErrImagePull):
    """The registry refused every credential at hand (401, 403); another credential may help."""


class ImageCorrupt(ErrImagePull):
    """Content is malformed, or does not match its digest, size or rules of the image format."""


class StoreFull(ErrImagePull):
    """The file system of the image store has no room (or no inodes) left."""


class RegistryUnavailable(ImageError):
    """The registry cannot be reached, or answers that it is overloaded, after bounded retries."""

    reason = "RegistryUnavailable"


class ErrImageNeverPull(ImageError):
    """imagePullPolicy is Never and the image is not in the store."""

    reason = "ErrImageNeverPull"


class ImageInUse(ImageError):
    """The image cannot be removed: a container's root file system is mounted from its layers."""

    reason = "ImageInUse"


class ArchiveError(ErrImagePull):
    """An image archive that cannot be read as a docker or OCI archive; the store is left as it was."""

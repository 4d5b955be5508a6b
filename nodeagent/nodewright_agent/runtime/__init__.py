"""Containers on the host: images, sandboxes, cgroups, the OCI runtime and its monitor."""

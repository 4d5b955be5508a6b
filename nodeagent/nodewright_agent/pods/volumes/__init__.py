"""Volumes of Pods: made before the first container starts, kept up to date while it runs, removed safely at the end."""

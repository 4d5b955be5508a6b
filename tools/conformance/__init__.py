"""`make conformance`: upstream's e2e.test against an embedded cluster. How to use it: docs/conformance.md."""

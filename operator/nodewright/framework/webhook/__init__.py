"""The admission webhook: HTTPS with certificates of its own making. See docs/decisions/0003-own-webhook-server.md."""

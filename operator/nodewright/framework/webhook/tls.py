"""The TLS side of the server: one context for the life of the process, whose certificate can be exchanged."""

from __future__ import annotations

import os
import ssl


def server_context() -> ssl.SSLContext:
    """A context without a certificate: handshakes fail until `use` gives it one. TLS 1.2 and later, no compression."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # HTTP/1.1 only, and said so: Go's client offers h2 first.
    context.set_alpn_protocols(["http/1.1"])
    return context


def use(context: ssl.SSLContext, chain: bytes) -> None:
    """Serve this certificate and key (one PEM text) in all handshakes from now on; open connections go on."""
    # ssl reads files only. Memory with a file's name keeps the key off the disk, and needs no writable directory.
    descriptor = os.memfd_create("webhook-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)

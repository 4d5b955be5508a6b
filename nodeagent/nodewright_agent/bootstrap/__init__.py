"""The node's own identity: a client certificate by CertificateSigningRequest, kept and renewed (KEP-266)."""

"""kubelet's HTTPS API: who may ask (authn, authz), what is asked (server, handlers), and container logs."""

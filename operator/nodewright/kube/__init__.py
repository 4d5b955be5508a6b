"""Access to the Kubernetes API: client, watch cache, typed objects, selectors, quantities, events, leases."""

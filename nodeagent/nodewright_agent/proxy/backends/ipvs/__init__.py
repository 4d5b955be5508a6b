"""The IPVS backend: virtual servers in the kernel, and ipset with iptables for what IPVS cannot express."""

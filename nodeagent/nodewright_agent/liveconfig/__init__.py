"""NodeAgentConfig: settings that running agents and proxies take over, and what they say about it.

`merge` and `verdict` are pure. `watcher` follows the objects and the node's labels, hands the merged settings to
subscribers (`agent`, and the proxy's `Wishes`), and lets `reporter` keep this node's entries in the objects' status.
"""

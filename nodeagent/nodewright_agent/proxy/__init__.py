"""The service proxy: Services and EndpointSlices -> desired table -> rules in the kernel.

`services`, `endpoints`, `model` and `table` are pure: they hold upstream's rules. A backend (`backends/`) makes the
kernel match the table by difference. `proxy` joins both to the API server.
"""

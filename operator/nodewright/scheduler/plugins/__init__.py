"""The built-in plugins, one file each. `nodewright.scheduler.registry` is the table that names them."""

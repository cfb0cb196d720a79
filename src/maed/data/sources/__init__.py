"""Sources by name or path: one file each, found by `maed.registry.SOURCES`."""

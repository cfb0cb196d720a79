"""What signals can come from by name or path: one file each, found by `maed.registry.SOURCES`."""

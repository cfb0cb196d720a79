"""Sources: what signals can come from, one file each."""

"""Foreign files of INT8 ranges, one format a module: bytes to entries and back."""

"""Which channels and slices of all layers are removed."""

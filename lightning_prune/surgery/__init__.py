"""Floor 2: edits a live module: masks, cuts, optimizer state, the architecture record."""

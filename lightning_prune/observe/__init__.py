"""Floor 2: watches a live module through hooks."""

"""Floor 3: policies. They read a module, its groups and statistics, and say which channels stay."""

"""Floor 4: when things happen to a model that trains, without Lightning."""

"""How important a channel is."""

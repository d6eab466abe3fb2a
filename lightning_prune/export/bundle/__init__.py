"""A folder with a network in several formats, each judged in its own runtime."""

"""The command line: the only floor that knows Hydra."""

"""Hydra configs, found as pkg://lightning_prune.conf in an installed wheel."""

# Hydra imports this package when it searches it: the recipes' arithmetic then works in a program
# that has a command line of its own.
from lightning_prune.runs.configuration.resolvers import register_resolvers

register_resolvers()

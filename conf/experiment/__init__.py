"""Hydra configs, found as pkg://lightning_prune.conf in an installed wheel."""

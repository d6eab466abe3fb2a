"""Durable runs: checkpoints, resume, sweeps and signals. Nothing here knows of pruning."""

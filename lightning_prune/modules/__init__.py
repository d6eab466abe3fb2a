"""LightningModules of the project."""

"""What the LightningModules of every family share."""

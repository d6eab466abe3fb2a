"""What the data modules of every family share: findings, loaders and orders that resume."""

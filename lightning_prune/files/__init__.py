"""Floor 0: files that are written whole or not at all, and files that are not trusted."""

from lightning_prune.files.write_bytes import write_bytes as write_bytes

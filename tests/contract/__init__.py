"""The contract that every recipe keeps with every module: `registry` says which there are."""

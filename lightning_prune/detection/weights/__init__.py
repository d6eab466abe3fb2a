"""Weight files of detectors, ours and those that others wrote."""

"""Pages that show runs: one HTML file each, drawn from what a run's folder holds."""

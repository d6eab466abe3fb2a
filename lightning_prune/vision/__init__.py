"""Networks of other homes: classifiers and segmentation by name."""

"""Networks of other homes by name: classifiers and segmentation, images and masks in folders."""

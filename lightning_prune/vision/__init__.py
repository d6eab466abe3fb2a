"""Networks of other homes for images: timm classifiers, and data in folders."""

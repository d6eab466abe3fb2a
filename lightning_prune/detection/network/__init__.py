"""YOLOv8 in plain torch: network, loss, assignment, post-processing and weight files."""

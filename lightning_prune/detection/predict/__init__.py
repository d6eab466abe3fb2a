"""Detections on images of any size: what goes in, what comes out, and what is drawn of it."""

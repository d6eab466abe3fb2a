"""Runs with an installed `ultralytics`: prints its version as JSON."""

import json

import ultralytics

print(json.dumps(ultralytics.__version__))

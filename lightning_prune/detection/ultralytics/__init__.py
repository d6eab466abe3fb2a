"""Networks of the installed `ultralytics` package as they are: read, trained, pruned, given back.

Their package is imported where a network is built, and nowhere else in the house; it is under the
AGPL-3.0, which then holds for what uses both.
"""

"""Networks as files of other runtimes, each compared with its origin before it is written."""

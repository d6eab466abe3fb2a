"""The command line inside the test process, as the tests of `cli` call it."""

from tests.cli.conftest import again, cli

__all__ = ["again", "cli"]

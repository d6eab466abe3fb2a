"""The one exception of the command line that users are meant to see."""


class ConfigError(ValueError):
    """Say what is wrong with a configuration, what is allowed and what to do, in plain words."""

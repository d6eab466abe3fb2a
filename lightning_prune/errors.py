"""The errors whose sentences users are meant to see."""


class ConfigError(ValueError):
    """Say what is wrong with a configuration, what is allowed and what to do, in plain words."""


class DataError(ValueError):
    """A data set that cannot be trained on as it is."""

"""Which extra brings a plugin of Hydra."""

_EXTRAS = ("joblib", "submitit", "optuna")


def plugin_sentence(kind: str, name: str) -> str | None:
    """Return what to install for a launcher or a sweeper; None: none of ours.

    >>> plugin_sentence("launcher", "submitit_slurm")
    "this launcher needs: pip install 'lightning-prune[submitit]'"
    """
    extra = next((one for one in _EXTRAS if name.startswith(one)), None)
    return None if extra is None else f"this {kind} needs: pip install 'lightning-prune[{extra}]'"

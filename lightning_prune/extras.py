"""Say which extra of the project brings a package that is not installed."""

EXTRAS = {
    "PIL": ("vision", "detection", "neural", "cli"),
    "faster_coco_eval": ("detection",),
    "h5py": ("neural",),
    "hydra": ("cli",),
    "jinja2": ("report", "cli"),
    "markupsafe": ("report", "cli"),
    "matplotlib": ("report", "cli"),
    "omegaconf": ("cli",),
    "pycocotools": ("detection",),
    "rich": ("report", "cli"),
    "torchvision": ("vision", "detection", "cli"),
}
"""Package, as it is imported -> the extras that bring it, the smallest first."""


def missing_extra(error: ImportError, what: str, home: str = "") -> str | None:
    """Return one sentence on what to install where an import failed.

    Args:
        error: What the import raised.
        what: What was asked for, such as a class or a command.
        home: The package of this project in which it is: ``detection`` needs more than images do.

    Returns:
        None where the package belongs to no extra: the error then speaks for itself.

    >>> error = ModuleNotFoundError("No module named 'PIL'", name="PIL")
    >>> missing_extra(error, "read_image")
    "read_image needs PIL: pip install 'lightning-prune[vision]', or [all]"
    >>> missing_extra(error, "DetectionModule", "detection")
    "DetectionModule needs PIL: pip install 'lightning-prune[detection]', or [all]"
    """
    package = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
        return None
    extra = home if home in EXTRAS[package] else EXTRAS[package][0]
    return f"{what} needs {package}: pip install 'lightning-prune[{extra}]', or [all]"

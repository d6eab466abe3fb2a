"""Every format of the table has a writer that takes what the command gives it."""

import inspect
import subprocess
import sys

import pytest

from lightning_prune.export.formats import FORMATS, ExportFormat, Writer
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_takes_what_the_command_gives_it(name: str):
    wanted = list(inspect.signature(Writer.__call__).parameters.values())[1:]
    found = inspect.signature(FORMATS[name].load_writer()).parameters
    assert [(p.name, p.default) for p in found.values()] == [(p.name, p.default) for p in wanted]
    assert FORMATS[name].suffix.startswith(".")


def test_what_is_missing_is_named_with_what_installs_it():
    plain = ExportFormat("Tree", ".tree", "Forest", "x:y", ("math", "no_such_package"))
    with pytest.raises(ModuleNotFoundError, match="needs no_such_package: pip install no_such_p"):
        plain.check_installed()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-prune\[tree\]'"):
        ExportFormat(
            "Tree", ".tree", "Forest", "x:y", ("no_such_package",), "tree"
        ).check_installed()
    ExportFormat("Tree", ".tree", "Forest", "x:y", ("math",)).check_installed()


def test_the_table_is_read_without_torch():
    code = "import sys, lightning_prune.cli.export_parser as p; p.export_parser()\n"
    code += "print({'torch', 'lightning', 'onnx'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"

"""The field's words: the private dialect that the code once had stays out of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lightning_prune"
# Not yet in the field's words. Whoever rewrites one takes it off this list.
HISTORY = ("docs/log.md",)
# What is about channels: elsewhere a reader may be one of files, and a line one of text.
CHANNELS = r"lightning_prune/(callbacks|engine|functional|graph|loop|policies|report|surgery)/"
CHANNELS += r"|docs/.*prun"
DATA = r"lightning_prune/(data|detection/data|neural/data|observe)/"
EVERYWHERE = ""
# The old word, where it is the dialect's, and the field's.
DIALECT = [
    (r"\b(draw|drawn|draws|pull|pulled|pulls) (\w+ ){0,4}(to|towards) zero\b", "push", EVERYWHERE),
    (r"(?<![.\w])[Rr]eaders?\b(?! import)", "consumers", CHANNELS),
    (r"\b(hear|hears|heard)\b", "is notified of", EVERYWHERE),
    (r"_?\bfates?\b|_fates\b", "input status", EVERYWHERE),
    (r"\brungs?\b", "allowed widths", EVERYWHERE),
    (r"\bdrift\b(?! apart)", "max shift", CHANNELS),
    (r"\breach(?==|: )|`reach`", "max shift", CHANNELS),
    (r"\bLines\b|\bline_filler\b|\bline_sums\b", "row and column sums, make_zeroer", EVERYWHERE),
    (r"\b(set_)?living(_\w+)?\b", "unmasked", EVERYWHERE),
    (r"\b([Tt]akes?|[Tt]aken|[Tt]ook|[Tt]aking) up\b", "restore, resume", EVERYWHERE),
    (r"(?<![.\w])([Tt]ells?|[Tt]old|telling)\b(?!\W(\w+\W+){0,4}apart)", "say, show", EVERYWHERE),
    (r"\binformed\b", "with_gradients", EVERYWHERE),
    (r"\b[Ss]tand(s|ing)?[ _-]?in(s\b|\b)(?! \w*(line|row|place))", "proxy", EVERYWHERE),
    (
        r"\bshares? of\b|\b(kept|largest|its|whose) share\b|\bshare(s|_\w+)? =",
        "fraction",
        EVERYWHERE,
    ),
    (r"\b[Ss]hak(e|es|en|ing)\b|\b_offer\b|\boffers\b", "perturb, improve", CHANNELS),
    (r"\b[Pp]ictures?\b|_pictures?\b", "image", DATA),
    (r"\b(not finite|no numbers?) any ?more\b", "NaN or infinite", EVERYWHERE),
    (r"\b[Aa]new\b", "again", EVERYWHERE),
    (r"\b([Gg]o|[Gg]oes|[Gg]oing|[Ww]ent|gone) on\b", "continue", EVERYWHERE),
    (r"\b(lies|lie|lay) in\b", "is in", EVERYWHERE),
    (r"\b(By|At) = TypeVar|\[(By|At)\]", "SelectionT, PenaltyT", EVERYWHERE),
    (r"\bmax_pruning_ratio\b", "keep_range", EVERYWHERE),
]
# Names that checkpoints and commands of earlier runs have.
ALLOWED = {
    ('"pictures": len(self.dataset)', "lightning_prune/data/loader.py"),
    ("max_pruning_ratio", "lightning_prune/runs/configuration/renamed_keys.py"),
}
NO_FIRST_WORDS = {"Tell", "Give", "Say", "Take", "Hand", "Let", "Look", "The", "A", "An", "Whether"}
NO_FIRST_WORDS |= {f"{word}s" for word in ("Tell", "Give", "Return", "Compute", "Build", "Check")}
# Of code, where an entry begins with it: `uint8, (H, W, 3)`, `v, channels`.
CODE = r"[a-z]\d?,|u?int\d|float\d|bool\b|`"


def is_skipped(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return any(name == room or name.startswith(f"{room}/") for room in HISTORY)


def texts() -> Iterator[Path]:
    found = [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "conf").rglob("*.yaml"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    yield from (path for path in [*sorted(found), ROOT / "README.md"] if not is_skipped(path))


def functions() -> Iterator[tuple[str, ast.AST, str]]:
    """Yield the place, the node and the docstring of functions and classes that have one."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if is_skipped(path):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node, text


def entries_of(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of what stands under `Args:` and `Attributes:`."""
    for _, block in re.findall(r"^(Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.M):
        for entry in re.split(r"^    (?=\S)", block, flags=re.M)[1:]:
            name, _, text = entry.partition(":")
            yield name, text.strip()


def test_old_words_stay_out():
    found = []
    for path in texts():
        name = path.relative_to(ROOT).as_posix()
        patterns = [(re.compile(old), new) for old, new, where in DIALECT if re.search(where, name)]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if any(name == file and text in line for text, file in ALLOWED):
                continue
            found += [
                f"{name}:{number}: {match.group()!r}, of the field's words: {new}"
                for old, new in patterns
                if (match := old.search(line))
            ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "Return how strongly each channel is drawn to zero.",
        "the readers of removed channels",
        "Tell whether a channel is used.",
        "it stands in for a custom layer",
        "the run goes on from there",
        "a share of the channels",
        "take up the progress",
    ],
)
def test_dialect_is_recognised(line: str):
    assert any(re.search(old, line) for old, _, _ in DIALECT)


@pytest.mark.parametrize(
    "line",
    [
        "tell the classes apart",
        "position = file.tell()",
        "a grey canvas is drawn",
        "ranks share the samples",
        "its channels reach the output of the model",
        "the option that stands in line 3",
    ],
)
def test_plain_english_is_no_dialect(line: str):
    assert not [old for old, _, _ in DIALECT if re.search(old, line)]


def test_docstrings_of_functions_begin_with_an_imperative():
    wrong = [
        f"{place}: {text.splitlines()[0]}"
        for place, node, text in functions()
        if not isinstance(node, ast.ClassDef) and text.split()[0] in NO_FIRST_WORDS
    ]
    assert not wrong, "\n".join(wrong)


def test_entries_of_arguments_are_sentences():
    wrong = [
        f"{place}: {name}: {text}"
        for place, _, text in functions()
        for name, text in entries_of(text)
        if not text.endswith(".") or (text[:1].islower() and not re.match(CODE, text))
    ]
    assert not wrong, "\n".join(wrong)

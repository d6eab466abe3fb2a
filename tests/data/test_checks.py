import pytest

from lightning_prune.data.checks import Findings, Problem, settle
from lightning_prune.errors import DataError


def findings(**counts: int) -> Findings:
    result = Findings()
    for name, count in counts.items():
        for index in range(count):
            result.add(Problem[name], f"{name.lower()} at {index}")
    return result


def test_message_counts_names_and_advises() -> None:
    message = findings(DUPLICATE=1, CORRUPT_IMAGE=7).message().splitlines()
    assert message == [
        "  7 x corrupt or unreadable image",
        *[f"      corrupt_image at {index}" for index in range(5)],
        "      ... and 2 more",
        "      -> restore the file or remove it",
        "  1 x box given twice (taken once)",
        "      duplicate at 0",
    ]


def test_nothing_found_says_nothing() -> None:
    settle(Findings(), "raise", "data.yaml", 0)


def test_fatal_problem_raises_with_everything_found() -> None:
    with pytest.raises(DataError) as caught:
        settle(findings(UNKNOWN_CLASS=1, POLYGON=2), "raise", "data.yaml", 1)
    text = str(caught.value)
    assert text.startswith("data.yaml: the data set has problems:")
    assert "1 x class id out of range" in text
    assert "2 x polygon" in text
    assert 'on_error="skip"' in text


def test_skip_warns_and_tells_what_is_left_out() -> None:
    with pytest.warns(UserWarning, match=r"1 x class id(.|\n)*3 images are left out"):
        settle(findings(UNKNOWN_CLASS=1), "skip", "data.yaml", 3)


def test_peculiarities_only_warn() -> None:
    with pytest.warns(UserWarning, match="2 x image without label file"):
        settle(findings(NO_LABEL_FILE=2), "raise", "data.yaml", 0)


def test_places_are_counted_and_only_the_first_kept() -> None:
    found, more = findings(CROWD=3), findings(CROWD=1000, POLYGON=1)
    found.merge(more)
    assert found.count(Problem.CROWD) == 1003
    assert found.places[Problem.CROWD] == [
        *(f"crowd at {index}" for index in range(3)), "crowd at 0", "crowd at 1",
    ]  # fmt: skip
    assert "1003 x crowd region" in found.message()
    assert "... and 998 more" in found.message()


def test_a_format_has_its_own_advice() -> None:
    found = Findings({Problem.BOX_OUTSIDE: "in pixels"})
    found.add(Problem.BOX_OUTSIDE, "\x1b[2Jhere")
    assert found.message().splitlines() == [
        "  1 x box outside the image", "      \\x1b[2Jhere", "      -> in pixels",
    ]  # fmt: skip

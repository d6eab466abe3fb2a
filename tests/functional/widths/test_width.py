import pytest

from lightning_prune.functional import clip_width, is_selectable


@pytest.mark.parametrize(
    ("k", "channels", "keep_range", "round_to", "expected"),
    [
        (20, 64, (0.25, 0.5), 1, (20, "knee")),
        (16, 64, (0.25, 0.5), 1, (16, "knee")),
        (32, 64, (0.25, 0.5), 1, (32, "knee")),
        (15, 64, (0.25, 0.5), 1, (16, "lower")),
        (33, 64, (0.25, 0.5), 1, (32, "upper")),
        (33, 64, None, 1, (33, "knee")),
        (None, 64, (0.25, 0.5), 1, (32, "fallback")),
        (None, 64, None, 1, (32, "fallback")),
        (None, 65, (0.25, 0.5), 8, (32, "fallback")),
        (20, 64, (0.25, 0.5), 8, (24, "knee")),  # 16 and 24 equally near: the larger
        (19, 64, (0.25, 0.5), 8, (16, "knee")),
        (25, 100, (0.25, 0.5), 8, (32, "knee")),  # 24 is nearer but outside
        (50, 100, (0.25, 0.5), 8, (48, "knee")),
        (9, 20, (0.25, 0.5), 16, (16, "rounding")),  # nothing in 5..10, 0 is no width
        (23, 64, (0.3, 0.36), 32, (32, "rounding")),  # 19..23
        (20, 36, (0.5, 0.6), 16, (16, "rounding")),  # 18..21: 16 is nearer than 32
        (5, 12, (0.25, 0.5), 16, (12, "rounding")),  # no multiple of 16 in the layer
        (29, 100, (0.25, 0.29), 1, (29, "knee")),  # 0.29 * 100 < 29 in floating point
        (3, 4, (0.25, 0.5), 1, (2, "upper")),
        (500, 64, None, 1, (64, "upper")),
        (1, 1, (0.25, 0.5), 1, (1, "knee")),
    ],
)
def test_widths(
    k: int | None,
    channels: int,
    keep_range: tuple[float, float] | None,
    round_to: int,
    expected: tuple[int, str],
) -> None:
    assert clip_width(k, channels, keep_range, round_to) == expected


def test_agrees_with_a_search_over_all_multiples() -> None:
    for channels in range(1, 70):
        lower, upper = max(1, channels // 4), max(1, channels // 2)
        for round_to in (1, 2, 3, 8, 16):
            inside = [m for m in range(lower, upper + 1) if m % round_to == 0]
            for k in range(1, channels + 1):
                clipped = min(max(k, lower), upper)
                width, bound = clip_width(k, channels, (0.25, 0.5), round_to)
                if inside:
                    assert width == min(inside, key=lambda m: (abs(m - clipped), -m))
                    assert bound == ("lower" if k < lower else "upper" if k > upper else "knee")
                else:
                    outside = [m for m in range(1, channels + 1) if m % round_to == 0]
                    nearest = min(abs(m - clipped) for m in [*outside, channels])
                    assert width == channels or abs(width - clipped) == nearest
                    assert bound == "rounding"


def test_layers_of_three_channels_are_left_alone() -> None:
    assert [is_selectable(c) for c in (1, 3, 4, 64)] == [False, False, True, True]


def test_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        clip_width(2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        clip_width(2, 8, round_to=0)
    with pytest.raises(ValueError, match="None for no knee"):
        clip_width(0, 8)
    for keep_range in ((0.0, 0.5), (0.5, 0.25), (0.5, 1.5)):
        with pytest.raises(ValueError, match="smallest and the largest fraction"):
            clip_width(2, 8, keep_range)

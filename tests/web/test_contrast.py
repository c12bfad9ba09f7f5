"""Colours of the console against WCAG 2.2: 4.5 for text, 3 for what marks a control, by light and by dark."""

import re

import pytest

from backend.web import console_files

CSS = console_files()["console.css"].decode()
TEXT = 4.5
MARK = 3.0
_PAIRS = [
    *[(text, ground, TEXT) for text in ("text", "muted") for ground in ("panel", "ground", "raised")],
    *[("accent", ground, TEXT) for ground in ("panel", "ground", "accent-soft")],
    ("on-accent", "accent", TEXT),
    *[(kind, f"{kind}-soft", TEXT) for kind in ("good", "bad", "warn")],
    *[(kind, "panel", TEXT) for kind in ("good", "bad", "warn")],
    *[("text", f"{kind}-soft", TEXT) for kind in ("good", "bad", "warn", "accent")],
    *[("strong-line", ground, MARK) for ground in ("panel", "ground")],
    *[("focus", ground, MARK) for ground in ("panel", "ground")],
]


def palette(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\n *\}", CSS, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", light))
    return colours | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", dark)) if scheme == "dark" else colours


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_has_the_contrast_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.005)  # known to fail by a hair


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_controls_can_be_told_from_what_is_behind_them(scheme):
    colours = palette(scheme)
    found = {f"{one} on {other}": round(contrast(colours[one], colours[other]), 2) for one, other, _ in _PAIRS}
    assert {
        pair: found[pair]
        for pair, least in ((f"{one} on {other}", least) for one, other, least in _PAIRS)
        if found[pair] < least
    } == {}


def test_verdicts_can_be_read_on_their_colours():
    css = console_files()["screens.css"].decode()
    grounds = re.findall(r'\.verdict\[data-word="(?:ok|ng)"\] \{ background: (#[0-9a-f]{6})', css)
    assert len(grounds) == 2
    assert min(contrast("#fff", ground) for ground in grounds) >= TEXT
    stripes = re.findall(r"#[0-9a-f]{6}", css.split("repeating-linear-gradient(")[1].split(")")[0])
    word = re.search(r'"none"\] \.verdict-word \{[^}]*color: (#[0-9a-f]{6})', css)
    assert word is not None
    assert min(contrast(word[1], stripe) for stripe in stripes) >= TEXT

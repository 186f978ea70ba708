"""What do colours stand for? Palettes of a light and a dark page, dashes, patterns. Pure.

The hues are told apart by people who see fewer of them, and each is readable on its ground (a test
measures both). Twelve workers are six hues in two dashes: colour is never the only sign.
"""

from __future__ import annotations

LIGHT = {
    "ground": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1d2329",
    "grey": "#59636e",
    "line": "#d5d9de",
    "accent": "#0b62a8",
    "good": "#1a7f37",
    "bad": "#b3261e",
    "c0": "#0045ec",
    "c1": "#c00200",
    "c2": "#0097a4",
    "c3": "#97199b",
    "c4": "#bb850b",
    "c5": "#3d3450",
    "train": "#3b7fbf",
    "move": "#d97a16",
    "wait": "#dfe3e8",
    "away": "#f3d9d7",
}
DARK = {
    "ground": "#12161c",
    "panel": "#1b2129",
    "ink": "#e8ecf1",
    "grey": "#9ba6b2",
    "line": "#343c47",
    "accent": "#6cb6ff",
    "good": "#56d364",
    "bad": "#ff8a80",
    "c0": "#418df8",
    "c1": "#fd9803",
    "c2": "#1fd19c",
    "c3": "#cb5ea4",
    "c4": "#fff115",
    "c5": "#cad0ff",
    "train": "#3f86c8",
    "move": "#f0a04b",
    "wait": "#39424d",
    "away": "#4a2526",
}
HUES = 6
"""Colours of lines: c0 .. c5."""

DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Of lines, in their widths' pixels: the hues begin again with the next."""

PURPOSES = ("c4", "c0", "c1", "c2", "c5")
"""Colours of data, model, update, control, logs."""

FILLS = {2: ("c1", "wait"), 3: ("train", "move", "wait"), len(PURPOSES): PURPOSES}
"""Colours of a bar's parts, by how many there are; of three: training, transfer, waiting."""

MARKS = {
    "push": ("accent", "▲", "push"),
    "quiet": ("grey", "·", "quiet round"),
    "veto": ("bad", "✕", "veto"),
    "rejected": ("bad", "◇", "update rejected"),
    "lost": ("bad", "■", "lost"),
    "back": ("good", "□", "back"),
    "left": ("grey", "○", "left"),
}
"""Kind of a mark -> its colour, sign and name."""


def hue(look: int) -> int:
    """The colour of the line with this number."""
    return look % HUES


def dash(look: int) -> str:
    """Its dash, as SVG has it."""
    return DASHES[look // HUES % len(DASHES)]

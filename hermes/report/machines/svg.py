"""How is a picture of boxes and arrows written as SVG? Readable on light and on dark pages.

A picture brings its own ground, so that it is readable wherever it is shown; which palette it
takes is the reader's (`prefers-color-scheme`).
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

Point = tuple[float, float]

LIGHT = {
    "ground": "#ffffff",
    "ink": "#1f2328",
    "grey": "#59636e",
    "line": "#8c959f",
    "plain": "#f6f8fa",
    "blue": "#ddf4ff",
    "blue-line": "#0969da",
    "teal-line": "#0a7c86",
    "violet-line": "#8250df",
    "orange": "#fff1e5",
    "orange-line": "#bc4c00",
    "green": "#dafbe1",
    "green-line": "#1a7f37",
    "red": "#ffebe9",
    "red-line": "#cf222e",
    "panel": "#fafbfc",
}
DARK = {
    "ground": "#0d1117",
    "ink": "#e6edf3",
    "grey": "#9198a1",
    "line": "#6e7681",
    "plain": "#212830",
    "blue": "#10263f",
    "blue-line": "#58a6ff",
    "teal-line": "#39b5c0",
    "violet-line": "#ab7df8",
    "orange": "#3a2310",
    "orange-line": "#e8944a",
    "green": "#12301d",
    "green-line": "#3fb950",
    "red": "#3d1a1c",
    "red-line": "#f85149",
    "panel": "#141a22",
}
HUES = tuple(name for name in LIGHT if name.endswith("line"))

SANS = "-apple-system, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


def style() -> str:
    """The style sheet: both palettes."""
    return (
        f".sans{{font-family:{SANS}}}.mono{{font-family:{MONO}}}"
        f"{_colours(LIGHT)}@media (prefers-color-scheme:dark){{{_colours(DARK)}}}"
    )


def _colours(palette: dict[str, str]) -> str:
    fills = "".join(f".f-{name}{{fill:{colour}}}" for name, colour in palette.items())
    lines = "".join(f".s-{name}{{stroke:{palette[name]}}}" for name in HUES)
    return fills + lines


class Picture:
    """An SVG in the making; sizes in pixels, y downwards."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def box(
        self,
        at: Point,
        size: Point,
        fill: str,
        line: str,
        *,
        round_: float = 6,
        dashed: bool = False,
    ) -> None:
        """A rectangle whose upper left corner is `at`."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}" '
            f'rx="{round_:g}" class="f-{fill} s-{line}"{dash}/>'
        )

    def text(
        self,
        at: Point,
        words: str,
        size: float = 12,
        *,
        colour: str = "ink",
        font: str = "sans",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """Words whose base line begins (or has its middle, or ends) at `at`."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'class="{font} f-{colour}" stroke="none"{weight}>{escape(words)}</text>'
        )

    def curve(
        self, points: Sequence[Point], line: str, *, head: bool = True, width: float = 1.4
    ) -> None:
        """A line between two points, or a Bézier curve with one or two control points between."""
        first, *rest = points
        kind = {1: "L", 2: "Q", 3: "C"}[len(rest)]
        path = f"M{first[0]:.1f} {first[1]:.1f}{kind}" + " ".join(
            f"{x:.1f} {y:.1f}" for x, y in rest
        )
        end = f' marker-end="url(#{line})"' if head else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke-width="{width:g}" class="s-{line}"{end}/>'
        )

    def render(self) -> str:
        """The whole file."""
        heads = "".join(
            f'<marker id="{hue}" viewBox="0 0 8 8" refX="7.2" refY="4" markerWidth="9" '
            f'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0.6L8 4L0 7.4z" class="f-{hue}" stroke="none"/></marker>'
            for hue in HUES
        )
        size = f"{self.width:g}", f"{self.height:g}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" '
                f'width="{size[0]}" height="{size[1]}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{style()}</style>",
                f"<defs>{heads}</defs>",
                f'<rect width="{size[0]}" height="{size[1]}" rx="8" class="f-ground"/>',
                *self._parts,
                "</svg>\n",
            ]
        )

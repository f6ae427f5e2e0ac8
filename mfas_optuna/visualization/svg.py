"""Boxes, arrows and texts of a drawing as SVG elements; what is in a text is escaped.

Lengths are in user units, of which a figure shown at its own size has one a pixel. No element has an identifier, so
that any number of drawings can stand in one page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

FONT_SIZE = 14.0
CHARACTER, BOLD_CHARACTER = 7.8, 8.8
"""Width that a character is taken to have; that of most fonts is smaller."""
MIN_BOX, MAX_BOX = 56.0, 190.0
"""Widths of boxes."""
GAP = 18.0
"""Between the boxes of a column; lines from columns further out pass through it."""
GUTTER = 46.0
"""Between columns, where lines bend."""
ARROW = 6.0
"""Length of an arrow's head."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Half its height, from above."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width


def line(source: Box, target: Box, port: float, colour: str, *, is_left: bool, is_next: bool) -> str:
    """Return an arrow from a feature to a stage; of a column further out, through the gap beneath the feature's row."""
    sign = 1 if is_left else -1
    start, tip = (source.right, target.x) if is_left else (source.x, target.right)
    end = tip - sign * ARROW
    path = f"M{start:.1f} {source.middle:.1f}"
    y = source.middle
    if not is_next:
        y = source.y + source.height + GAP / 2
        bend = start + sign * GUTTER
        half = sign * GUTTER / 2
        path += f" C{start + half:.1f} {source.middle:.1f} {bend - half:.1f} {y:.1f} {bend:.1f} {y:.1f}"
        start = tip - sign * GUTTER
        path += f" H{start:.1f}"
    middle = (start + end) / 2
    path += f" C{middle:.1f} {y:.1f} {middle:.1f} {port:.1f} {end:.1f} {port:.1f}"
    head = f"M{tip:.1f} {port:.1f}l{-sign * ARROW:.0f} -4v8z"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/><path d="{head}" fill="{colour}"/>'


def down(source: Box, target: Box, *, faint: bool = False) -> str:
    """Return an arrow from one box to another beneath it."""
    x, start, tip = source.x + source.width / 2, source.y + source.height, target.y
    opacity = ' opacity="0.45"' if faint else ""
    return (
        f'<path d="M{x:.1f} {start:.1f}V{tip - ARROW:.1f}" fill="none" stroke="currentColor" stroke-width="1.4"'
        f"{opacity}/>"
        f'<path d="M{x:.1f} {tip:.1f}l-4 -{ARROW:.0f}h8z" fill="currentColor"{opacity}/>'
    )


def past(source: Box, target: Box, position: int) -> str:
    """Return an arrow from a stage to the end, beside the stages below it."""
    side = -1 if position % 2 == 0 else 1
    start = source.x + (0 if side < 0 else source.width)
    x = start + side * (8 + 4 * position)
    tip = target.x + (0 if side < 0 else target.width)
    y = target.middle
    return (
        f'<path d="M{start:.1f} {source.y + source.height - 6:.1f}H{x:.1f}V{y:.1f}H{tip + side * ARROW:.1f}" '
        'fill="none" stroke="currentColor" stroke-width="1.4"/>'
        f'<path d="M{tip:.1f} {y:.1f}l{side * ARROW:.0f} -4v8z" fill="currentColor"/>'
    )


def feature_box(box: Box, name: str, colour: str) -> str:
    """Return the box of a feature: in its colour where it is chosen, faint where there is none."""
    text = text_at(box.x + box.width / 2, box.middle + 5, name, box.width, faint=not colour)
    if colour:
        return rectangle(box, colour, 0.2) + text
    return rectangle(box, "currentColor", 0.0, faint=True) + text


def rectangle(box: Box, colour: str, fill: float, *, faint: bool = False) -> str:
    """Return a box with rounded corners; `fill` is the opacity of its inside."""
    opacity = ' stroke-opacity="0.4"' if faint else ""
    return (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6" '
        f'fill="{colour}" fill-opacity="{fill:g}" stroke="{colour}" stroke-width="1.5"{opacity}/>'
    )


def text_at(
    x: float,
    y: float,
    text: str,
    width: float,
    *,
    colour: str = "currentColor",
    bold: bool = False,
    faint: bool = False,
) -> str:
    """Return a text about x; one that is too long is cut in its middle, and whole in its tooltip."""
    room = max(int((width - 4) / (BOLD_CHARACTER if bold else CHARACTER)), 3)
    title = ""
    if len(text) > room:
        title = f"<title>{escape(text)}</title>"
        text = f"{text[: room // 2]}…{text[len(text) - (room - 1) // 2 :]}"
    weight = ' font-weight="600"' if bold else ""
    opacity = ' fill-opacity="0.75"' if faint else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{FONT_SIZE:g}" text-anchor="middle" fill="{colour}"'
        f"{weight}{opacity}>{title}{escape(text)}</text>"
    )


def width_for(texts: Sequence[str]) -> float:
    """Return how wide a box must be for some texts, within bounds."""
    return min(max([MIN_BOX, *(len(text) * BOLD_CHARACTER + 8 for text in texts)]), MAX_BOX)

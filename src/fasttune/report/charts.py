"""The charts of a report, drawn by matplotlib once and shown in light and dark colours.

A chart is an image in the page, so that the page needs neither scripts nor inline styles; its numbers stand in a table
beside it.
"""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colours that are drawn, and what they become on a dark page. All but that of grid lines contrast with their page.
INK, FAINT, BLUE, ORANGE = "#24292f", "#c9d1d9", "#0b57d0", "#b3450b"
DARK = {INK: "#e6edf3", FAINT: "#3a424c", BLUE: "#79b8ff", ORANGE: "#ffa657"}
MOST_POINTS, SMOOTH_POINTS = 400, 40  # of a line
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei")
RESOLUTION = 144  # dots per inch of PNG files
SETTINGS: Any = {
    "text.parse_math": False,  # a dollar sign in a label begins no formula
    "svg.fonttype": "none",  # text stays text, in the browser's font
    "svg.hashsalt": "fasttune",  # the same chart gives the same bytes
    "font.family": list(FONTS),
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "grid.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """`name`: of the files; `text`: what it shows, for those who do not see it; `columns` and `rows`: its numbers."""

    name: str
    title: str
    text: str
    figure: Figure
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def light(self) -> str:
        """The address of the image in a light page."""
        return _address(self._svg)

    @property
    def dark(self) -> str:
        svg = self._svg
        for light, other in DARK.items():
            svg = svg.replace(light, other)
        return _address(svg)

    @cached_property
    def _svg(self) -> str:
        file = io.BytesIO()
        with _style():
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return file.getvalue().decode()

    def save(self, folder: Path) -> list[Path]:
        """Write FOLDER/NAME.svg and .png, with a white background."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}.{ending}" for ending in ("svg", "png")]
        with _style():
            for path in paths:
                self.figure.savefig(path, dpi=RESOLUTION, facecolor="white", metadata=_no_date(path))
        return paths


def _no_date(path: Path) -> dict[str, None]:
    return {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}


@contextmanager
def _style() -> Iterator[None]:
    """The colours above, without matplotlib's lines on fonts that it lacks: browsers have their own."""
    import matplotlib

    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        logger.setLevel(level)


def _address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of these inches, with its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def thinned(points: Sequence[tuple[float, float]], number: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of at most `number` points: means of equally many neighbours."""
    parts = np.array_split(np.asarray(points, dtype=np.float64), min(len(points), number))
    x, y = np.array([part.mean(axis=0) for part in parts]).T
    return x, y


@_style()
def curves(
    losses: Sequence[tuple[float, float]],
    evaluations: Sequence[tuple[float, float]],
    labels: tuple[str, str, str],
    best: float | None,
) -> Figure:
    """Training loss by epoch and, beside it, the metric of each evaluation; `labels`: epoch, loss, metric.

    The loss of a step is that of a few rows, so its mean over neighbouring steps is drawn on top.
    """
    has_metric = len(evaluations) > 1
    figure, axes = _figure(8 if has_metric else 5, 3, 1 + has_metric)
    axes[0].plot(*thinned(losses, MOST_POINTS), color=FAINT, linewidth=1)
    axes[0].plot(*thinned(losses, SMOOTH_POINTS), color=BLUE, linewidth=1.8)
    axes[0].set(xlabel=labels[0], ylabel=labels[1])
    if has_metric:
        axes[1].plot(*zip(*evaluations, strict=True), color=BLUE, marker="o", markersize=5)
        if best is not None:
            axes[1].axvline(best, color=ORANGE, linestyle="--", linewidth=1.2)
        axes[1].set(xlabel=labels[0], ylabel=labels[2])
    for axis in axes:
        axis.grid(axis="y", linewidth=0.6)
    return figure


@_style()
def confusion(counts: Sequence[Sequence[int]], names: Sequence[str], labels: tuple[str, str]) -> Figure:
    """Shares of each true class; a darker cell holds a larger share of its row."""
    from matplotlib.patches import Rectangle

    number = len(names)
    size = min(max(3.2, 0.55 * number + 1.6), 10)
    figure, (axis,) = _figure(size, size * 0.9)
    for row, of_class in enumerate(counts):
        total = sum(of_class)
        for column, count in enumerate(of_class):
            share = count / total if total else 0.0
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=BLUE, alpha=0.55 * share, linewidth=0))
            if count and number <= 15:
                axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9 if number <= 8 else 7)
    shown = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    axis.set_xticks(range(number), shown, rotation=0 if number <= 5 and max(map(len, shown)) < 9 else 90)
    axis.set_yticks(range(number), shown)
    axis.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5))
    axis.tick_params(length=0)
    return figure


@_style()
def reliability(bins: Iterable[dict[str, float]], labels: tuple[str, str]) -> Figure:
    """Confidence against accuracy; on the dashed line they agree."""
    figure, (axis,) = _figure(3.8, 3.4)
    points = [(one["confidence"], one["accuracy"]) for one in bins]
    lowest = min([value for point in points for value in point], default=0.0)
    axis.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    axis.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=5)
    start = max(0.0, lowest - 0.05)
    axis.set(xlim=(start, 1.01), ylim=(start, 1.01), xlabel=labels[0], ylabel=labels[1])
    axis.grid(linewidth=0.6)
    return figure


@_style()
def intervals(rows: Sequence[tuple[str, float, float, float]], label: str) -> Figure:
    """A point and its interval for each name; the first is the model and has another colour."""
    figure, axis = _points(rows, [ORANGE, *[BLUE] * (len(rows) - 1)])
    axis.set(xlabel=label)
    return figure


@_style()
def differences(rows: Sequence[tuple[str, float, float, float]], label: str) -> Figure:
    """A difference and its interval for each name, in another colour where the interval leaves out no difference."""
    figure, axis = _points(rows, [BLUE if low <= 0 <= high else ORANGE for *_, low, high in rows])
    axis.axvline(0, color=INK, linestyle="--", linewidth=1)
    axis.set(xlabel=label)
    return figure


def _points(rows: Sequence[tuple[str, float, float, float]], colors: Sequence[str]) -> tuple[Figure, Axes]:
    """(name, value, low, high) as points on lines, one below the other."""
    figure, (axis,) = _figure(7, 0.55 * len(rows) + 0.9)
    for place, ((_, value, low, high), color) in enumerate(zip(rows, colors, strict=True)):
        axis.plot([low, high], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot([value], [place], color=color, marker="o", markersize=8)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set(ylim=(len(rows) - 0.5, -0.5))
    axis.grid(axis="x", linewidth=0.6)
    axis.tick_params(axis="y", length=0)
    return figure, axis

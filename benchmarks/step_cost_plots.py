"""The pictures of `step_cost.py`."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Measured(Protocol):
    """A method on a tree; see `step_cost.Row`."""

    name: str
    trace: float
    compile: float
    step: float
    floor: float


def plot_growth(
    found: Mapping[str, Sequence[Measured]],
    by_leaves: Mapping[str, int],
    by_params: Mapping[str, int],
    path: Path,
) -> None:
    """Seconds of each method as trees get larger.

    Args:
      found: rows by the tree.
      by_leaves: how many leaves there are in the trees of which these become more.
      by_params: how many params in those whose leaves become larger.
      path: of the image.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 3.8), layout="constrained")
    *first, last = figure.subplots(1, 4)
    colours: dict[str, str] = {}
    styles: dict[str, _Style] = {}
    panels = [(axes, what, by_leaves) for axes, what in zip(first, _STAGES, strict=True)]
    for axes, what, sizes in (*panels, (last, "step", by_params)):
        for row, points in _curves(found, sizes, what).items():
            method, library = _whose(row)
            colour = colours.setdefault(method, f"C{len(colours)}")
            style = styles.setdefault(library, _STYLES[len(styles) % len(_STYLES)])
            axes.loglog(*zip(*points, strict=True), ls=style, marker=".", color=colour, lw=1)
        axes.set(ylabel=f"{what}, seconds")
        axes.set_xlabel("leaves of 64x64" if sizes is by_leaves else "params in four leaves")
        axes.grid(alpha=0.3)
    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    lines += [Line2D([], [], color="black", ls=style, label=name) for name, style in styles.items()]
    figure.legend(handles=lines, loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=130)


_Style = str | tuple[int, tuple[int, ...]]
_STYLES: tuple[_Style, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_STAGES = ("trace", "compile", "step")


def _curves(
    found: Mapping[str, Sequence[Measured]], sizes: Mapping[str, int], what: str
) -> dict[str, list[tuple[int, float]]]:
    """(size, seconds) of each method; what is not compiled has no curve."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for tree, size in sizes.items():
        for row in found[tree]:
            if (seconds := getattr(row, what)) > 0:
                curves.setdefault(row.name, []).append((size, seconds))
    return curves


def plot_steps(found: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """A panel for each tree and in it a line for each method, with a mark for each library."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(_whose(row.name)[0] for rows in found.values() for row in rows))
    libraries = list(dict.fromkeys(_whose(row.name)[1] for rows in found.values() for row in rows))
    figure = Figure(figsize=(3.4 * len(found) + 2, 1.3 + 0.3 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (tree, rows) in zip(panels, found.items(), strict=True):
        for library, marker in zip(libraries, itertools.cycle("osD^vP")):
            of_library = [row for row in rows if _whose(row.name)[1] == library]
            heights = [methods.index(_whose(row.name)[0]) for row in of_library]
            multiples = [row.step / row.floor for row in of_library]
            axes.scatter(multiples, heights, 36, marker=marker, label=library, alpha=0.8, zorder=3)
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set(title=tree, xlim=(0, None), xlabel="step : copying the same bytes")
        axes.set_yticks(range(len(methods)), methods)
        axes.grid(alpha=0.3)
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * len(found)
    )
    figure.savefig(path, dpi=130)


def _whose(row: str) -> tuple[str, str]:
    """The method that a row measures, and the library that it is of."""
    words, _, form = row.partition(", ")
    library, _, method = words.rpartition(" ")
    return method, " ".join(filter(None, (library or "gradchain", form)))

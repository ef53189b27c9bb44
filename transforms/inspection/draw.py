"""Diagrams of transformations: `draw`."""

from dataclasses import dataclass
from pathlib import Path

import optax

from ..notation.arguments import argument_of
from ..notation.build import Flow
from ..notation.checks import checked
from ..notation.hyperparameters import Count
from .drawing.diagram import Diagram, diagram_of
from .drawing.picture import picture_of
from .drawing.text import as_text


@dataclass(frozen=True)
class Drawing:
    """A diagram: shown in characters in a terminal, as a picture in a notebook.

    Attributes:
      diagram: its boxes and wires.
    """

    diagram: Diagram

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return as_text(self.diagram)

    def svg(self) -> str:
        """The picture as SVG."""
        return picture_of(self.diagram).svg()

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | Path) -> None:
        """Writes the picture as .svg, or as .png (which needs matplotlib)."""
        picture_of(self.diagram).save(path)


@checked()
def draw(
    transformation: optax.GradientTransformation,
    path: str | Path | None = None,
    depth: int | None = 1,
) -> Drawing:
    """Draws a transformation, its signals running from top to bottom.

    A function of a transformation.

    What is written for the next step is dashed. Boxes that keep state are heavy in text, and
    yellow in pictures. A signal that is used twice is drawn once; transformations that are not
    flows are single boxes.

    Args:
      transformation: any Optax transformation.
      path: file to write the picture to, .svg or .png.
      depth: how many levels of transformations inside are opened: 1 shows each inner
        transformation as one box, None everything down to the arithmetic. The parts of a chain
        are opened without being counted.

    Returns:
      A `Drawing`.

    Raises:
      FlowError: for a path that is neither .svg nor .png, or if matplotlib is missing for a PNG.

    Example:
      >>> from gradchain import chain, draw
      >>> from gradchain.transforms import ema, scale_by_learning_rate
      >>> print(draw(chain(ema(0.9), scale_by_learning_rate(0.1)), depth=0))
                ( g )
                  │
                  ▼
            ┏━━━━━━━━━━━┓
            ┃    ema    ┃
            ┃ decay 0.9 ┃
            ┗━━━━━━━━━━━┛
                  │
                  ▼
      ┌────────────────────────┐
      │ scale_by_learning_rate │
      │   learning_rate 0.1    │
      └────────────────────────┘
                  │
                  ▼
              ( update )
    """
    argument_of("depth", Count | None).check("draw", depth)
    drawing = Drawing(diagram_of(transformation, depth))
    if path is not None:
        drawing.save(path)
    return drawing


def _picture(flow: Flow) -> str | None:
    return None if flow.program is None else draw(flow).svg()


Flow._repr_svg_ = _picture  # type: ignore[attr-defined]  # how a notebook shows a flow

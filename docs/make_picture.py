"""Writes the README's picture: an optimizer's code beside the diagram that is drawn from it.

python docs/make_picture.py
"""

import io
import keyword
import tokenize
from collections.abc import Iterator
from pathlib import Path

import gradchain
from gradchain.transforms.inspection.drawing.diagram import diagram_of
from gradchain.transforms.inspection.drawing.picture import (
    CHARACTER,
    INK,
    Look,
    Picture,
    Rectangle,
    Words,
    picture_of,
)

PATH = Path(__file__).parent / "images" / "adabelief.svg"

CODE = """\
def scale_by_adabelief(b1=0.9, b2=0.999, eps=1e-16):
    def step(g):
        # the mean of the gradients
        m = g >> named("mu", ema(b1))
        # how far they stray from it
        s = square(g - m) >> named("nu", ema(b2))

        m = m >> debias(b1)
        s = s >> debias(b2)
        return m / (sqrt(s) + eps)

    return flow(step)


adabelief = chain(
    scale_by_adabelief(),
    scale_by_learning_rate(1e-3),
)
"""

SIZE, LINE = 13, 20
CARD = Look("#f8fafc", "#cbd5e1", 10)
PAGE = Look("#ffffff", "#ffffff", 0)
KEYWORD, COMMENT, STRING, NUMBER = "#7c3aed", "#64748b", "#15803d", "#b45309"


def words(code: str, left: float, top: float) -> Iterator[Words]:
    """The code, token by token, each in its colour and at its column."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.string.strip():
            (row, column), text = token.start, token.string
            x, y = left + column * SIZE * CHARACTER, top + (row - 0.5) * LINE
            yield Words(x, y, text, SIZE, colour(token), "start")


def colour(token: tokenize.TokenInfo) -> str:
    """The colour of a token."""
    if token.type == tokenize.NAME and keyword.iskeyword(token.string):
        return KEYWORD
    kinds = {tokenize.COMMENT: COMMENT, tokenize.STRING: STRING, tokenize.NUMBER: NUMBER}
    return kinds.get(token.type, INK)


def picture() -> Picture:
    """Code on the left, diagram on the right, both centred, on white."""
    scope = {**vars(gradchain.transforms), **vars(gradchain)}
    exec(CODE, scope)
    lines = CODE.splitlines()
    width = max(map(len, lines)) * SIZE * CHARACTER + 40
    height = len(lines) * LINE + 36
    diagram = picture_of(diagram_of(scope["adabelief"], 1))
    full = Picture(width + diagram.width + 40, max(height, diagram.height) + 24)
    top = (full.height - height) / 2
    full.shapes += [
        Rectangle(0, 0, full.width, full.height, PAGE),
        Rectangle(16, top, width, height, CARD),
        *words(CODE, 36, top + 18),
        *diagram.shifted(width + 28, (full.height - diagram.height) / 2).shapes,
    ]
    return full


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    picture().save(PATH)

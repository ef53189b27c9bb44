"""The user's source: the line that messages point at, and the expression that is at fault."""

import ast
import builtins
import linecache
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, TypeGuard

from .errors import FlowError

PACKAGE = __name__.split(".")[0]
MACHINERY = {PACKAGE, "jax", "jaxlib", "optax", "numpy", "functools", "contextlib", "importlib"}
"""Packages whose frames stand between the user's line and the place where it is asked for."""


def is_users(frame: FrameType) -> bool:
    """Whether the code of a frame is the user's."""
    is_machinery = _is_machinery(str(frame.f_globals.get("__name__", "")))
    return not is_machinery or frame.f_code.co_filename.startswith("<doctest")


@cache
def _is_machinery(module: str) -> bool:
    return module.split(".")[0] in MACHINERY


def users_line(frame: FrameType) -> str:
    """File and line of the user's code that led to a frame."""
    found = frame
    while not is_users(found) and found.f_back is not None:
        found = found.f_back
    if not is_users(found):
        found = frame
    return f"{Path(found.f_code.co_filename).name}:{found.f_lineno}"


class Span(NamedTuple):
    """Where an expression stands; columns count bytes.

    Attributes:
      code: what it belongs to.
      line: its first line.
      column: where it starts.
      last_line: its last line.
      end: where it ends.
    """

    code: CodeType
    line: int
    column: int
    last_line: int
    end: int

    @property
    def site(self) -> str:
        """File and line."""
        return f"{Path(self.code.co_filename).name}:{self.line}"

    def text(self) -> str:
        """The source, on one line; empty where it cannot be read."""
        lines = [
            linecache.getline(self.code.co_filename, number).encode()
            for number in range(self.line, self.last_line + 1)
        ]
        if not all(lines):
            return ""
        lines[-1] = lines[-1][: self.end]
        lines[0] = lines[0][self.column :]
        return " ".join(line.decode(errors="replace").strip() for line in lines)


def span_of(code: CodeType, instruction: int) -> Span | None:
    """The expression that an instruction evaluates; None where Python was told not to keep it."""
    found = next(islice(code.co_positions(), instruction // 2, None), None)
    if found is None or None in found:
        return None
    line, last_line, column, end = found
    return Span(code, line, column, last_line, end)  # type: ignore[arg-type]


def running(frame: FrameType) -> Span | None:
    """The expression that a frame is at."""
    return span_of(frame.f_code, frame.f_lasti)


def check_parentheses(stored: Span | None, here: Span | None) -> None:
    """Refuses `past << a > b`, which is `(past << a) > b`: it stores `a` and drops the comparison.

    The two operators then start at the same place of the source, as they do not where there are
    parentheses, or where `a` is compared later on.

    Args:
      stored: the `past << a` by which the left operand of the other operator was stored.
      here: that operator with both its operands.
    """
    if stored is None or here is None or stored[:3] != here[:3]:
        return
    past, whole = (part.strip() for part in here.text().split("<<", 1))
    alone = stored.text().split("<<", 1)[1].strip()
    raise FlowError(
        f"`{past} << {whole}` ({here.site}) would store `{alone}` alone, as `<<` binds tighter "
        f"than comparisons, `&` and `|`: write `{past} << ({whole})`"
    )


class Call(NamedTuple):
    """A call in the user's source.

    Attributes:
      text: its source.
      site: its file and line.
      function: what is called, as it is written.
      called: what is called; None where that is not told by a name.
      arguments: values of the names in its arguments.
    """

    text: str
    site: str
    function: str
    called: Any
    arguments: tuple[Any, ...]


def failed_calls(trace: TracebackType | None) -> list[Call | None]:
    """What the user's code was at when an error came up, the innermost first.

    None for what is no call, or where the source does not tell.
    """
    return [_call_in(frame, instruction) for frame, instruction in _users_frames(trace)][::-1]


def site_of(trace: TracebackType | None) -> str:
    """File and line of the innermost of the user's code that an error came out of."""
    found = ""
    while trace is not None:
        if is_users(trace.tb_frame):
            found = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _call_in(frame: FrameType, instruction: int) -> Call | None:
    span = span_of(frame.f_code, instruction)
    if span is None:
        return None
    text = span.text()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(tree, ast.Call):
        return None
    scope = {**vars(builtins), **frame.f_globals, **frame.f_locals}
    nodes = [n for argument in (*tree.args, *tree.keywords) for n in ast.walk(argument)]
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    arguments = tuple(scope[name] for name in names if name in scope)
    return Call(text, span.site, ast.unparse(tree.func), _named(tree.func, scope), arguments)


def _named(node: ast.expr, scope: dict[str, Any]) -> Any:
    """What a dotted name stands for; None for any other expression."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    return getattr(_named(node.value, scope), node.attr, None) if _is_dotted(node) else None


def _is_dotted(node: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute)


def _users_frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        if is_users(trace.tb_frame):
            yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next

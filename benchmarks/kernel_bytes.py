"""What the kernels of a compiled step read and write, against the least that a step can.

    python benchmarks/kernel_bytes.py
    python benchmarks/kernel_bytes.py adamw lamb adan

Nothing is run: the program of a donated step on four leaves of two million entries, compiled under
what `gradchain.compiler_options` advises, is read kernel by kernel. *Moved* are bytes per param of
all of them; of a branch those of the cheaper side, as the other one is for numbers at the edges of
the format or for steps that are rare. The *floor* is the gradient once, params and state twice, and
once more what kernels read that give only a few numbers, as a norm that must be known before the
update. A quotient above 1 is what the compiler reads or writes again, because it makes one kernel
for every result.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from peak_memory import ADVISED, asked_for, compiled, size_of

LEAVES, SHAPE = 4, (1024, 2048)
FEW = 1 / 64
"""A kernel whose result is so small a part of what it reads looks at it beforehand."""

FREE = (
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "partition-id",
)
"""What moves nothing."""

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "c64": 8}
"""Bytes of an entry, where they are not four."""

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*?)\)(?:, |$)(.*)$")


def bytes_of(shape: str) -> int:
    """Of a type as XLA writes it, a tuple's parts added."""
    arrays = re.findall(r"([a-z]+\d*(?:e\w+)?)\[([\d,]*)\]", shape)
    return sum(
        SIZES.get(kind, 4) * math.prod(map(int, filter(None, sizes.split(","))))
        for kind, sizes in arrays
    )


@dataclass
class Instruction:
    """A line of a program.

    Attributes:
      name, shape, kind: of its result, and what it does.
      operands: names.
      rest: its attributes.
    """

    name: str
    shape: str
    kind: str
    operands: list[str]
    rest: str

    def called(self, attribute: str) -> list[str]:
        """The computations of an attribute."""
        found = re.search(attribute + r"=(\{[^}]*\}|%?[\w.\-]+)", self.rest)
        return re.findall(r"%?([\w.\-]+)", found.group(1)) if found else []


@dataclass
class Traffic:
    """Bytes.

    Attributes:
      moved: read and written.
      looked_at: read by kernels that give few numbers.
    """

    moved: float = 0.0
    looked_at: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.moved + other.moved, self.looked_at + other.looked_at)

    def times(self, count: int) -> "Traffic":
        return Traffic(self.moved * count, self.looked_at * count)


@dataclass
class Program:
    """The computations of a compiled program."""

    text: str
    sums: dict[str, Traffic] = field(default_factory=dict)

    @cached_property
    def computations(self) -> dict[str, list[Instruction]]:
        return dict(_computations(self.text))

    @cached_property
    def shapes(self) -> dict[str, str]:
        return {i.name: i.shape for lines in self.computations.values() for i in lines}

    def whole(self) -> Traffic:
        entry = re.search(r"^ENTRY %?([\w.\-]+)", self.text, re.M)
        assert entry
        return self.of(entry.group(1))

    def of(self, computation: str) -> Traffic:
        if computation not in self.sums:
            parts = map(self.of_line, self.computations[computation])
            self.sums[computation] = sum(parts, Traffic())
        return self.sums[computation]

    def of_line(self, line: Instruction) -> Traffic:
        if line.kind in FREE:
            return Traffic()
        if line.kind == "conditional":
            names = line.called("branch_computations") or [
                *line.called("true_computation"), *line.called("false_computation"),
            ]  # fmt: skip
            return min(map(self.of, names), key=lambda found: found.moved)
        if line.kind == "while":
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line.rest)
            return self.of(line.called("body")[0]).times(int(turns.group(1)) if turns else 1)
        if line.kind == "call":
            return self.of(line.called("to_apply")[0])
        read, written = self._read(line), bytes_of(line.shape)
        return Traffic(read + written, read if written < FEW * read else 0)

    def _read(self, line: Instruction) -> float:
        inside = self.computations[line.called("calls")[0]] if line.kind == "fusion" else []
        params = {i.operands[0]: i.name for i in inside if i.kind == "parameter"}
        total = 0.0
        for place, name in enumerate(line.operands):
            users = [i for i in inside if params.get(str(place)) in i.operands]
            parts = [i for i in users if i.kind in ("slice", "dynamic-slice")]
            whole = bytes_of(self.shapes.get(name, ""))
            is_cut = parts and len(parts) == len(users)
            total += min(whole, sum(bytes_of(i.shape) for i in parts)) if is_cut else whole
        return total


def _computations(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    name, lines = "", list[Instruction]()
    for line in text.split("\n"):
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        found = INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line))
        if head:
            name, lines = head.group(1), []
        elif line.startswith("}"):
            yield name, lines
        elif found:
            result, shape, kind, operands, rest = found.groups()
            names = re.findall(r"%([\w.\-]+)|^(\d+)$", operands)
            lines.append(Instruction(result, shape, kind, ["".join(n) for n in names], rest))


@dataclass
class Figures:
    """Of one method, in bytes per param.

    Attributes:
      moved: by all kernels.
      least: the gradient once, params and state twice.
      looked_at: what must be known before the update.
      temporary: beyond params, gradients and state.
    """

    moved: float
    least: float
    looked_at: float
    temporary: float

    @property
    def quotient(self) -> float:
        return self.moved / (self.least + self.looked_at)


def figures(opt: Any) -> Figures:
    """Of a step that returns params and state as they were donated."""
    params = {str(i): jax.ShapeDtypeStruct(SHAPE, jnp.float32) for i in range(LEAVES)}
    program, state = compiled(opt, ADVISED, params)
    found, count = Program(program.as_text()).whole(), size_of(params) / 4
    least = 3 * size_of(params) + 2 * size_of(state)
    temporary = program.memory_analysis().temp_size_in_bytes
    return Figures(*(x / count for x in (found.moved, least, found.looked_at, temporary)))


def main(arguments: list[str] | None = None) -> None:
    methods = asked_for(arguments, __doc__)
    print("| method | moved : floor | moved | least | looked at | temporary |")
    print("|---|---|---|---|---|---|")
    for method in methods:
        try:
            row = figures(method.build())
        except Exception as error:  # as the other rows stand whatever one method needs
            print(f"| `{method.name}` | {str(error).partition(chr(10))[0][:80]} |", flush=True)
            continue
        cells = (row.quotient, row.moved, row.least, row.looked_at, row.temporary)
        print(f"| `{method.name}` | {' | '.join(f'{x:.2f}' for x in cells)} |", flush=True)


if __name__ == "__main__":
    main()

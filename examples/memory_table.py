"""Bytes of state per parameter of every optimizer, for the shapes of a 7-billion-parameter Llama.

    python examples/memory_table.py
    python examples/memory_table.py adam adafactor galore micro_adam --plot memory.png
    python examples/memory_table.py --mesh 8 4

No weight and no state is allocated: `init` is evaluated on shapes. With a mesh, matrices are spread
over its axes and the bytes are those of one device, params beside them.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
from gradchain.catalogue import METHODS
from rich.console import Console
from rich.table import Table

WIDTH, HIDDEN, LAYERS, VOCABULARY = 4096, 11008, 32, 32000
AXES = ("x", "y")


def llama(dtype: Any = jnp.bfloat16) -> dict[str, Any]:
    """The shapes of the params of Llama 2 7B, kernels with their outputs last."""

    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def block() -> dict[str, Any]:
        square = {name: leaf(WIDTH, WIDTH) for name in ("query", "key", "value", "output")}
        feed = {"gate": leaf(WIDTH, HIDDEN), "up": leaf(WIDTH, HIDDEN), "down": leaf(HIDDEN, WIDTH)}
        return {**square, **feed, "attention_norm": leaf(WIDTH), "feed_norm": leaf(WIDTH)}

    return {
        "embed": leaf(VOCABULARY, WIDTH),
        "blocks": [block() for _ in range(LAYERS)],
        "norm": leaf(WIDTH),
        "head": leaf(WIDTH, VOCABULARY),
    }


def spread(params: Any, mesh: Any) -> Any:
    """The shapes with matrices spread over the axes of a mesh; vectors are on every device."""

    def sharded(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        names = mesh.axis_names if leaf.ndim == 2 else ()
        return leaf.update(sharding=jax.NamedSharding(mesh, jax.P(*names)))

    return jax.tree.map(sharded, params)


def held(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of an array on one device."""
    whole = leaf.sharding is None
    shape = leaf.shape if whole else leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


@dataclass(frozen=True)
class Row:
    """One optimizer.

    Attributes:
      name: in the catalogue, or what was made of it.
      state: bytes of its state, on one device where there is a mesh; None where it refuses.
      why: the refusal.
    """

    name: str
    state: int | None
    why: str = ""


def measured(name: str, optimizer: Any, params: Any, mesh: Any) -> Row:
    """The bytes of state of one optimizer."""
    try:
        if mesh is None:
            return Row(name, gradchain.describe(optimizer, params).state_bytes)
        with jax.sharding.use_abstract_mesh(mesh):
            state = jax.eval_shape(optimizer.init, params)
        return Row(name, sum(map(held, jax.tree.leaves(state))))
    except Exception as error:  # whatever a method says to a model of this size stands in the table
        return Row(name, None, str(error).strip().partition("\n")[0])


def stored_in_less() -> dict[str, Any]:
    """What wrappers make of AdamW."""
    adamw = METHODS["adamw"].build()
    store = gradchain.transforms.store
    return {
        "adamw in 8 bits": store.quantize_state(adamw, along_last_axis=True),
        "adamw in bfloat16": store.store_state(adamw),
    }


def rows(names: list[str], params: Any, mesh: Any) -> list[Row]:
    """All rows, the smallest state first."""
    named = {name: METHODS[name].build() for name in names}
    found = [
        measured(name, opt, params, mesh) for name, opt in {**named, **stored_in_less()}.items()
    ]
    return sorted(found, key=lambda row: (row.state is None, row.state, row.name))


def table(found: list[Row], params: Any, devices: int) -> Table:
    """The rows as a table."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    weights = sum(map(held, jax.tree.leaves(params)))
    where = f" on each of {devices} devices" if devices > 1 else ""
    title = f"{count / 1e9:.2f} billion params, {weights / 1e9:.2f} GB{where}"
    shown = Table("optimizer", "bytes per param", "state, GB", "of AdamW's", title=title)
    for column in shown.columns[1:]:
        column.justify = "right"
    adamw = next((row.state for row in found if row.name == "adamw"), None)
    for row in found:
        if row.state is None:
            shown.add_row(row.name, "", "", "", style="dim")
            continue
        ratio = f"{row.state / adamw:.3f}" if adamw else ""
        per_param = row.state * devices / count
        shown.add_row(row.name, f"{per_param:.3f}", f"{row.state / 1e9:.2f}", ratio)
    return shown


def plot(found: list[Row], params: Any, devices: int, path: Path) -> None:
    """Draws the table as bars, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    where = f", on all {devices} devices" if devices > 1 else ""
    known = [row for row in found if row.state]
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.17 * len(known)), layout="constrained")
    values = [max(row.state * devices / count, 1e-6) for row in known if row.state]
    colours = ["tab:orange" if row.name.startswith("adamw") else "tab:blue" for row in known]
    axes.barh([row.name for row in known], values, color=colours)
    axes.set(xscale="log", xlabel=f"bytes of state per parameter{where}")
    axes.set_ylim(-0.7, len(known) - 0.3)
    axes.tick_params(axis="y", labelsize=7)
    axes.axvline(8, color="black", linewidth=0.8, linestyle=":")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title("State for Llama 2 7B; dotted: two float32 moments", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table, and draws it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("optimizers", nargs="*", help="names of the catalogue; default all")
    parser.add_argument("--mesh", type=int, nargs="+", metavar="N", help="devices along each axis")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where the plot is written")
    parser.add_argument("--refusals", action="store_true", help="say why a method has no row")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.optimizers if name not in METHODS]
    if unknown:
        parser.error(f"unknown optimizers: {', '.join(unknown)}")
    if options.mesh and (len(options.mesh) > 2 or min(options.mesh) < 1):
        parser.error("a mesh has one axis or two, each with a device at least")
    every = sorted(name for name, entry in METHODS.items() if entry.kind == "transformation")
    params, mesh, devices = llama(), None, 1
    if options.mesh:
        devices = math.prod(options.mesh)
        kinds = (jax.sharding.AxisType.Explicit,) * len(options.mesh)
        axes = AXES[: len(options.mesh)]
        mesh = jax.sharding.AbstractMesh(tuple(options.mesh), axes, axis_types=kinds)
        params = spread(params, mesh)
    found = rows(options.optimizers or every, params, mesh)
    console = Console()
    console.print(table(found, params, devices))
    refused = [row for row in found if row.state is None]
    if refused:
        console.print(f"no state for a model of this size: {', '.join(r.name for r in refused)}")
    for row in refused if options.refusals else ():
        console.print(f"  {row.name}: {row.why}", highlight=False, markup=False)
    if options.plot:
        plot(found, params, devices, options.plot)
        console.print(str(options.plot), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One compiled program for many settings: rates, decays and seeds of whole training runs at once.

found = sweep(lambda r, w: adamw(r, weight_decay=w), {"r": [...], "w": [...]}, ...)
print(found)
found.plot("valley.png")
"""

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .transforms import FlowError, Size, checked
from .transforms.notation import eval_params, needs
from .transforms.notation.foreign import update_with_extra

CHUNKS = 40
"""How often a sweep comes back from the device, to show how far it is."""

Loss = Callable[[Any, Any], Any]

EXTRAS: dict[str, Callable[[Callable[[Any], Any], Any, Any], Any]] = {
    "value": lambda loss, params, value: value,
    "value_fn": lambda loss, params, value: loss,
    "grad_fn": lambda loss, params, value: jax.grad(loss),
}
"""What a method may ask for beside the gradient: of the loss on the batch, params and value."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
      settings: the values of each argument, by name; an axis each of what follows.
      train: loss of every step, `[*settings, seeds, steps]`; NaN where a run diverged.
      final: what settings are judged by, `[*settings, seeds]`: `evaluate`, or the mean of the last
        tenth of `train`.
    """

    settings: Mapping[str, np.ndarray]
    train: np.ndarray
    final: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """`final`, averaged over seeds; infinite where a seed diverged."""
        mean = self.final.mean(axis=-1)
        return np.where(np.isfinite(mean), mean, np.inf)

    @property
    def best(self) -> dict[str, float]:
        """The settings of the lowest mean."""
        place = np.unravel_index(np.argmin(self.mean), self.mean.shape)
        pairs = zip(self.settings.items(), place, strict=True)
        return {name: float(values[i]) for (name, values), i in pairs}

    def __str__(self) -> str:
        best, mean = self.best, self.mean
        rows = [(*self.settings, "loss", "of seeds")]
        for place in np.ndindex(*mean.shape):
            values = [float(v[i]) for v, i in zip(self.settings.values(), place, strict=True)]
            spread = np.ptp(self.final[place]) / 2
            mark = " <" if values == list(best.values()) else ""
            texts = [f"{value:.3g}" for value in values]
            rows.append((*texts, f"{mean[place]:.4g}", f"+-{spread:.2g}{mark}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def plot(self, path: str | Path | None = None, along: str | None = None) -> Any:
        """Draws the valley: final loss along one setting, a line for each choice of the others.

        Args:
          path: where the picture is written; None writes none.
          along: the setting on the horizontal axis; default the first.

        Returns:
          The figure of matplotlib.

        Raises:
          FlowError: for an unknown setting, or if matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:  # pragma: no cover
            raise FlowError(
                "sweep: a plot needs matplotlib: pip install 'gradchain[draw]'"
            ) from error
        names = list(self.settings)
        along = names[0] if along is None else along
        if along not in names:
            raise FlowError(f"sweep: along={along!r} is no setting; there are {', '.join(names)}")
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        x = self.settings[along]
        others = [name for name in names if name != along]
        lines = np.moveaxis(self.final, names.index(along), -2)
        for place in np.ndindex(*lines.shape[:-2]):
            label = ", ".join(
                f"{name} {self.settings[name][i]:.3g}"
                for name, i in zip(others, place, strict=True)
            )
            values = np.where(np.isfinite(lines[place]), lines[place], np.nan)
            (line,) = axes.plot(x, values.mean(-1), marker="o", label=label or None)
            low, high = values.min(-1), values.max(-1)
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
        axes.set(xlabel=along, ylabel="final loss")
        if np.all(x > 0) and x.max() > 10 * x.min():
            axes.set_xscale("log")
        if others:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        if path is not None:
            figure.savefig(path, dpi=130)
        return figure


@checked()
def sweep(
    build: Callable[..., optax.GradientTransformation],
    settings: Mapping[str, Sequence[float]],
    init_params: Callable[[jax.Array], Any],
    loss_fn: Loss,
    batch_fn: Callable[[jax.Array, jax.Array], Any],
    *,
    steps: Size,
    seeds: Sequence[int] = (0,),
    evaluate: Callable[[Any], Any] | None = None,
    at_once: Size | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> Sweep:
    """Trains with every combination of settings and seeds, in one compiled program.

    Settings are numbers of one `jax.vmap`, so a run costs no compilation of its own, and small
    models fill the machine together. Every combination starts at the same params and sees the same
    batches as the others of its seed.

    Args:
      build: makes the optimizer from one number per setting, by keyword; only numbers can be swept,
        what sets shapes is fixed in `build`.
      settings: the values of each argument.
      init_params: `key -> params`.
      loss_fn: `(params, batch) -> loss`.
      batch_fn: `(key, step) -> batch`, with the step from 0 on; traced once.
      steps: of each run.
      seeds: of params and batches.
      evaluate: `params -> number`, at the end, of evaluation weights where the method has such;
        default the mean of the last tenth of the training losses.
      at_once: how many runs share the device at a time; default all.
      progress: a bar on a terminal's standard error, or a function of steps done and steps in all;
        False for neither.

    Returns:
      A `Sweep`: a table when printed, `.best`, `.plot(path)`.

    Raises:
      FlowError: for no settings or seeds, steps or at_once below 1, or a method that asks for more
        than the loss.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain import sweep
      >>> from gradchain.optimizers import adamw
      >>> found = sweep(
      ...     adamw, {"learning_rate": [1e-3, 1e-1, 1e1]},
      ...     lambda key: jnp.ones(4), lambda x, batch: jnp.sum((x - batch) ** 2),
      ...     lambda key, step: jnp.zeros(4), steps=30, progress=False)
      >>> found.train.shape, found.best
      ((3, 1, 30), {'learning_rate': 0.1})
    """
    values = {name: np.asarray(list(given), float) for name, given in settings.items()}
    if not values or not all(v.size for v in values.values()) or not len(seeds):
        raise FlowError("sweep: settings and seeds must have at least one value each")
    shape = (*(v.size for v in values.values()), len(seeds))
    table = np.array(list(itertools.product(*values.values(), range(len(seeds)))))
    columns = {name: jnp.asarray(table[:, i], float) for i, name in enumerate(values)}
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])[table[:, -1].astype(int)]

    runs = len(table)
    together = min(at_once or runs, runs)
    show = _bar if progress is True else progress or (lambda done, total: None)
    begin, advance, judge = _programs(build, init_params, loss_fn, batch_fn, steps, evaluate)
    train, final = [], []
    groups = [_rows(start, together, runs) for start in range(0, runs, together)]
    for number, rows in enumerate(groups):
        carry = begin({name: column[rows] for name, column in columns.items()}, keys[rows])
        stops = np.unique(np.linspace(0, steps, min(CHUNKS, steps) + 1).astype(int))
        for start, stop in itertools.pairwise(stops.tolist()):
            carry = jax.block_until_ready(advance(carry, start, stop))
            show(number * steps + stop, len(groups) * steps)
        train.append(np.asarray(carry[-1]))
        final.append(np.asarray(judge(carry)))
    joined = (np.concatenate(parts)[:runs] for parts in (train, final))
    losses, judged = joined
    return Sweep(values, losses.reshape(*shape, steps), judged.reshape(shape))


def _rows(start: int, count: int, runs: int) -> np.ndarray:
    """So many runs from one on; the last one fills up, so that all groups are of one shape."""
    return np.minimum(np.arange(start, start + count), runs - 1)


def _programs(
    build: Callable[..., optax.GradientTransformation],
    init_params: Callable[[jax.Array], Any],
    loss_fn: Loss,
    batch_fn: Callable[[jax.Array, jax.Array], Any],
    steps: int,
    evaluate: Callable[[Any], Any] | None,
) -> tuple[Any, Any, Any]:
    """Start of all runs, some steps of all, and what they are judged by; each compiled once."""

    def begin(chosen: Mapping[str, Any], key: Any) -> Any:
        start, batches = jax.random.split(key)
        params = init_params(start)
        value = jax.eval_shape(loss_fn, params, batch_fn(batches, jnp.zeros((), int)))
        seen = jnp.zeros(steps, value.dtype)
        return chosen, batches, params, build(**chosen).init(params), seen

    def step(t: Any, carry: Any) -> Any:
        chosen, key, params, state, seen = carry
        opt, batch = build(**chosen), batch_fn(key, t)

        def loss(x: Any) -> Any:
            return loss_fn(x, batch)

        value, grads = jax.value_and_grad(loss)(params)
        extra = {name: EXTRAS[name](loss, params, value) for name in _inputs(opt)}
        updates, state = update_with_extra(opt)(grads, state, params, **extra)
        return chosen, key, optax.apply_updates(params, updates), state, seen.at[t].set(value)

    def judge(carry: Any) -> Any:
        _, _, params, state, seen = carry
        if evaluate is None:
            return jnp.mean(seen[-math.ceil(steps / 10) :])
        return evaluate(eval_params(state, params))

    def advance(carry: Any, start: Any, stop: Any) -> Any:
        return jax.lax.fori_loop(start, stop, step, carry)

    together = jax.vmap(advance, in_axes=(0, None, None))
    return jax.jit(jax.vmap(begin)), jax.jit(together, donate_argnums=0), jax.jit(jax.vmap(judge))


def _inputs(opt: optax.GradientTransformation) -> list[str]:
    names = [name for name in needs(opt) if name != "params"]
    missing = [name for name in names if name not in EXTRAS]
    if missing:
        raise FlowError(f"sweep: the method needs {missing[0]!r}; there are {', '.join(EXTRAS)}")
    return names


def _bar(done: int, total: int) -> None:
    if not sys.stderr.isatty():
        return
    filled = 30 * done // total
    end = "\n" if done == total else ""
    bar = "#" * filled + "-" * (30 - filled)
    print(f"\r[{bar}] {done}/{total} steps", end=end, file=sys.stderr, flush=True)

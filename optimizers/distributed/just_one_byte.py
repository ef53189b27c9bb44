"""Just one byte: workers that send each other slopes, and redraw the directions."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    Positive,
    Signal,
    Size,
    flow,
    lift_tree,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.closures.checks import LossFunction
from ...transforms.notation import draws
from ...transforms.notation.context import Context
from ...transforms.notation.known import each, summed
from ...transforms.notation.values import Leaves
from ...transforms.trees import stored_key
from ...transforms.workers import axis
from ...transforms.zeroth_order import params_at
from ...transforms.zeroth_order.directions import draw_leaves, given_direction
from ...transforms.zeroth_order.losses import base_point, loss_function, moved
from ...transforms.zeroth_order.ties import tied

Perturbation = Callable[[jax.Array, Any, Any, Any], optax.Params]


@method(
    "Zelikman et al. 2023, Just One Byte (per gradient): A Note on Low-Bandwidth Decentralized "
    "Language Model Finetuning Using Shared Randomness",
    arxiv="2306.10015",
    tags=("workers", "low-memory", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def just_one_byte(
    learning_rate: optax.ScalarOrSchedule,
    eps: Positive = 1e-3,
    num_samples: Size = 1,
    one_byte: bool = True,
    key: Key = 0,
    axis_name: str | None = None,
    perturbation_fn: Perturbation | None = None,
) -> Flow:
    r"""Descent on zeroth-order estimates, of which each worker sends one number.

    Worker i of W has the loss :math:`f_i`, and S directions :math:`z_{ij} \sim N(0, I)` that all
    can redraw, by a key of step, worker and sample:

    .. math::
        p_{ij} &= \frac{f_{ij}(\theta + \epsilon z_{ij}) - f_{ij}(\theta - \epsilon z_{ij})}
            {2 \epsilon} \\
        e_{ij} &= \operatorname{clip}(\operatorname{round}(16 \ln |p_{ij}|), \pm 127), \qquad
        \hat p_{ij} = \operatorname{sign}(p_{ij})\, e^{e_{ij} / 16} \\
        \theta &\leftarrow \theta - \frac{\eta}{\sqrt{W S}} \sum_{ij} \hat p_{ij} z_{ij}

    Slopes from 3.6e-4 to 2.8e3 are sent to 3% at worst, smaller and larger ones as these ends, and
    0, or what is no number, as 0. Mind the root of the number of samples.

    Args:
      learning_rate: eta; number or schedule.
      eps: in units of the params, which are perturbed in float32 at least.
      num_samples: S, directions of each worker; 2 S evaluations of the loss.
      one_byte: False sends the slopes as they are.
      key: seed or key of the directions, the same on all workers.
      axis_name: the axis along which the workers lie; None: there is one.
      perturbation_fn: `(step, worker, sample, params) -> tree` in place of the normal draws, all
        counted from 0.

    Returns:
      The optimizer, the same updates on all workers. It needs `params` and `value_fn`, params ->
      this worker's loss, or `(params, sample) -> loss` with batches of their own, and may be given
      None as gradient. Its state is a key and a count. It sends a byte and a bit for each sample.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for a missing input or an axis that
        is not there.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import just_one_byte
      >>> loss = lambda x: jnp.sum(x**2)
      >>> opt, x = just_one_byte(0.1), jnp.array([1.0, -2.0])
      >>> state = opt.init(x)
      >>> for _ in range(50):
      ...     u, state = opt.update(None, state, x, value_fn=loss)
      ...     x = optax.apply_updates(x, u)
      >>> bool(loss(x) < 0.1)
      True

    References:
      Zelikman et al. 2023 (arXiv 2306.10015), whose text averages; ezelikman/justonebyte divides by
      the root, as here, computes the quantised slopes and then sends the others; we send them. A
      sign beside 255 levels are 9 bits.
    """
    shared = _Shared(num_samples, one_byte, axis_name, perturbation_fn)
    measure = lift_tree(
        shared.slopes,
        "slopes",
        context=True,
        out=shared.shape,
        needs=("params", "value_fn"),
        sent=None if axis_name is None else shared.sent,
    )
    walk = lift_tree(shared.total, "along_all", context=True, out=1)

    def step(g: Signal, params: Signal, value_fn: Signal | None = None) -> Signal:
        root, at, t = stored_key(key), params_at(g, params), step_count()
        slopes = measure(at, value_fn, root, scheduled(eps), t)
        return -scheduled(learning_rate) * walk(slopes, at, root, t)

    return flow(step)


@dataclass(frozen=True)
class _Shared:
    """What the workers agree on."""

    samples: int
    one_byte: bool
    axis_name: str | None
    perturbation_fn: Perturbation | None

    def draw(
        self,
        context: Context,
        at: Leaves,
        root: jax.Array,
        worker: int | jax.Array,
        sample: int | jax.Array,
    ) -> Leaves:
        """The direction of a worker's sample at this step, the same whoever asks for it."""
        count = context.step - 1
        if self.perturbation_fn is not None:
            params = None if context.params is None else context.params.tree()
            tree = self.perturbation_fn(count, worker, sample, params)
            return given_direction(at, tree, context, "perturbation_fn")
        for number in (count, worker, sample):
            root = draws.fold_in(root, number)
        return draw_leaves("gaussian", root, at)

    def slopes(
        self,
        context: Context,
        at: Leaves,
        value_fn: LossFunction,
        root: jax.Array,
        scale: float | jax.Array,
        _: jax.Array,
    ) -> jax.Array:
        """Those of all workers along all their directions, as they are received: (W, S)."""
        axis.require_axis(context.label, self.axis_name)
        at = axis.own(at, self.axis_name)
        point, worker = base_point(context, at), axis.worker_index(self.axis_name)
        numbers = jnp.arange(self.samples)
        others = (numbers[0],) if _takes_sample(value_fn) else ()
        loss = loss_function(context, value_fn, point, *others)

        def evaluate(row: tuple[jax.Array, jax.Array]) -> jax.Array:
            sample, sign = row
            z = self.draw(context, at, tied(root, sign), worker, sample)
            return loss(moved(point, z, sign * scale), *((sample,) if others else ()))

        rows = (
            jnp.repeat(numbers, 2),
            jnp.tile(jnp.asarray([1, -1], context.scalar_dtype), self.samples),
        )
        values = each(evaluate, rows, beside=at).reshape(self.samples, 2)
        own = ((values[:, 0] - values[:, 1]) / (2 * scale)).astype(context.scalar_dtype)
        return self.received(axis.gather(self.message(own), self.axis_name), own.dtype)

    def message(self, slopes: jax.Array) -> Any:
        """What a worker sends: an exponent in a byte, -128 for zero, and a bit for the sign."""
        if not self.one_byte:
            return slopes
        is_zero = (slopes == 0) | jnp.isnan(slopes)
        exponents = jnp.round(16 * jnp.log(jnp.abs(jnp.where(is_zero, 1, slopes))))
        codes = jnp.where(is_zero, -128, jnp.clip(exponents, -127, 127))
        return codes.astype(jnp.int8), jnp.packbits(slopes > 0)

    def received(self, message: Any, dtype: DTypeLike) -> jax.Array:
        """What messages say that are stacked on a leading axis."""
        if not self.one_byte:
            return message
        codes, bits = message
        signs = 2 * jnp.unpackbits(bits, axis=-1, count=self.samples).astype(dtype) - 1
        return jnp.where(codes == -128, 0, signs * jnp.exp(codes.astype(dtype) / 16))

    def total(
        self, context: Context, slopes: jax.Array, at: Leaves, root: jax.Array, _: jax.Array
    ) -> Leaves:
        """The sum of slope times direction, over the root of their number."""
        flat = slopes.ravel()

        def term(i: int | jax.Array) -> Leaves:
            z = self.draw(context, at, root, i // self.samples, i % self.samples)
            return z.map(lambda leaf: flat[i].astype(jnp.finfo(leaf.dtype).dtype) * leaf)

        return summed(flat.size, term).map(lambda leaf: leaf / flat.size**0.5)

    def shape(self, context: Context, *_: object) -> jax.ShapeDtypeStruct:
        """The number of workers is known inside the axis alone."""
        bound = axis.is_bound(self.axis_name)
        workers = axis.count_workers(self.axis_name) if bound else 1
        return jax.ShapeDtypeStruct((workers, self.samples), context.scalar_dtype)

    def sent(self, context: Context, *_: object) -> float:
        """Bytes of a worker's message."""
        slopes = jax.ShapeDtypeStruct((self.samples,), context.scalar_dtype)
        return float(axis.size_of(jax.eval_shape(self.message, slopes)))


def _takes_sample(value_fn: LossFunction) -> bool:
    """Whether the loss must be given the number of the sample, too."""
    try:
        parameters = inspect.signature(value_fn).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) > 1

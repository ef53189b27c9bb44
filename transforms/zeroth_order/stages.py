"""A loss in stages: what lies between them is perturbed in place of the params."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ..closures.checks import LossFunction
from ..notation.checks import checked
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.values import Leaves
from .losses import base_point

Space = Literal["weights", "activations"]
Stage = Callable[[Any, Any], jax.Array]
Weight = Callable[[jax.Array, jax.Array], jax.Array]
"""`(inner product, squared length) -> weight` of a guess."""


@dataclass(frozen=True)
class StagedLoss:
    """The loss of a batch as a composition of stages; see `staged_loss`.

    Attributes:
      stages: functions `(params, x) -> x`, the last one gives losses.
      x: what enters the first stage.
    """

    stages: tuple[Stage, ...]
    x: Any

    def __call__(self, params: optax.Params) -> jax.Array:
        return jnp.mean(self.losses(params))

    def activations(self, params: Any) -> list[Any]:
        """What each stage but the last hands on."""
        found, x = [], self.x
        for stage in self.stages[:-1]:
            x = stage(params, x)
            found.append(x)
        return found

    def losses(self, params: optax.Params, shifts: Sequence[Any] | None = None) -> jax.Array:
        """The last stage's losses; `shifts` are added to the activations."""
        x = self.x
        for i, stage in enumerate(self.stages[:-1]):
            x = stage(params, x)
            if shifts is not None:
                x = jax.tree.map(jnp.add, x, shifts[i])
        return self.stages[-1](params, x)

    def within_stages(self, params: Any, inputs: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        """A number whose gradient is back-propagated inside each stage, and no further."""
        total = jnp.mean(self.stages[-1](params, inputs[-1]))
        for stage, x, cotangent in zip(self.stages[:-1], inputs, cotangents, strict=False):
            products = jax.tree.map(lambda y, c: jnp.sum(y * c), stage(params, x), cotangent)
            total += sum(jax.tree.leaves(products))
        return total


@checked()
def staged_loss(stages: Sequence[Stage], x: jax.Array) -> StagedLoss:
    """A loss whose activations a forward gradient may perturb: stages, one after the other.

    A function of params.

    Args:
      stages: functions `(params, x) -> x` of all the params, of which each uses its own. The last
        gives the losses: a scalar, or one per sample, whose mean is the loss. Activations are trees
        of real floating-point arrays, with a leading axis of samples where there is a loss for
        each; targets are closed over.
      x: what enters the first stage, such as the inputs of a batch.

    Returns:
      A function params -> loss, for `value_fn`.

    Raises:
      ValueError: for fewer than two stages.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.zeroth_order import staged_loss
      >>> hidden = lambda params, x: jnp.tanh(x @ params["w"])
      >>> losses = lambda params, x: (x @ params["v"] - 1.0) ** 2
      >>> loss = staged_loss([hidden, losses], jnp.ones((4, 2)))
      >>> float(loss({"w": jnp.zeros((2, 3)), "v": jnp.ones(3)}))
      1.0
    """
    if len(stages) < 2:
        raise FlowError(f"staged_loss: {len(stages)} stages; there must be at least two")
    return StagedLoss(tuple(stages), x)


class Activations:
    """The activations of a staged loss at the params, and gradients from guesses of theirs.

    Args:
      context: what is known.
      value_fn: the staged loss.
      at: the params at the leaves that are wanted.
    """

    def __init__(self, context: Context, value_fn: LossFunction | None, at: Leaves) -> None:
        if not isinstance(value_fn, StagedLoss):
            raise FlowError(
                f'{context.label}: with space="activations" value_fn must be a `staged_loss`, '
                f"not {value_fn!r}"
            )
        self.context, self.loss, self.at = context, value_fn, at
        self.params = base_point(context, at).tree()
        self.values = Leaves.of(self.loss.activations(self.params))
        shapes = [(leaf.shape, leaf.dtype) for leaf in self.values.present()]
        if not all(jnp.issubdtype(dtype, jnp.floating) for _, dtype in shapes):
            raise FlowError(f"{context.label}: activations must be real floats, they are {shapes}")
        losses = jax.eval_shape(self.loss.losses, self.params)
        per_sample = all(shape[:1] == losses.shape for shape, _ in shapes)
        if losses.shape != () and not (len(losses.shape) == 1 and per_sample):
            raise FlowError(
                f"{context.label}: losses of shape {losses.shape} need activations with that "
                f"leading axis, they are {shapes}"
            )
        self.samples = losses.shape

    def derivative(self, direction: Leaves, as_batch: bool = False) -> jax.Array:
        """The derivative of the loss along it, of each sample's loss unless `as_batch`."""

        def shifted(shifts: Leaves) -> jax.Array:
            losses = self.loss.losses(self.params, shifts.tree())
            return jnp.mean(losses) if as_batch else losses

        zeros = self.values.map(jnp.zeros_like)
        return jax.jvp(shifted, (zeros,), (direction,))[1]

    def cotangents(
        self, guess: Leaves, weight: Weight, per_leaf: bool = False, as_batch: bool = False
    ) -> Leaves:
        """weight(<a, b>, |b|^2) b for a guess b of the derivatives a with respect to activations.

        Args:
          guess: b.
          weight: see `Weight`; of one number, or one per sample.
          per_leaf: one inner product, and one forward pass, for each array of activations.
          as_batch: one inner product over all samples.
        """
        samples = () if as_batch else self.samples
        axes = len(samples)
        share = 1 / (samples[0] if samples else 1)

        def squares(leaf: jax.Array) -> jax.Array:
            return jnp.sum(leaf**2, axis=tuple(range(axes, leaf.ndim)))

        def weighted(leaf: jax.Array, inner: jax.Array, norm: jax.Array) -> jax.Array:
            factor = weight(inner.astype(leaf.dtype), norm) * share
            return factor.reshape(factor.shape + (1,) * (leaf.ndim - axes)) * leaf

        norms = guess.map(squares)
        if per_leaf:
            inner = [self.derivative(alone, as_batch) for alone in singles(guess)]
            return guess.map(weighted, Leaves(inner, guess.treedef), norms)
        whole, norm = self.derivative(guess, as_batch), sum(norms.present())
        return guess.map(lambda leaf: weighted(leaf, whole, norm))

    def gradient(self, cotangents: Leaves) -> Leaves:
        """That of the params: of the last stage the true one, of others from the cotangents."""
        inputs = [self.loss.x, *self.values.tree()]

        def surrogate(at: Leaves) -> jax.Array:
            params = base_point(self.context, at).tree()
            return self.loss.within_stages(params, inputs, cotangents.tree())

        return jax.grad(surrogate)(self.at)


def singles(tree: Leaves) -> list[Leaves]:
    """The tree with one leaf at a time, and zeros."""
    return [
        Leaves(
            (x if i == j else jnp.zeros_like(x) for j, x in enumerate(tree.values)), tree.treedef
        )
        for i in range(len(tree))
    ]

"""Forward gradients along guesses."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    Key,
    NonNegative,
    Sampler,
    chain,
    transformation,
)
from ...transforms.zeroth_order import Guess, Mode, Scope, Space, Target, project_onto_guess


@method(
    "Fournier et al. 2023, Can Forward Gradient Match Backpropagation?",
    arxiv="2306.06968",
    tags=("noise",),
)
@transformation()
def forward_gradient_local(
    base: optax.GradientTransformation,
    guess: Guess = "given",
    mode: Mode = "per_sample",
    scope: Scope = "leaf",
    eps: NonNegative = 1e-16,
    target: Target = "gradient",
    key: Key = 0,
    sampler: Sampler | None = None,
    space: Space = "weights",
) -> Flow:
    """Projects the gradient onto a guess of it, as of an auxiliary head, and hands it to a method.

    The rule and the arguments are those of `project_onto_guess`. In the paper the last
    block takes its true gradient, as it does with space="activations", and the auxiliary heads are
    trained by their own loss: give those leaves another optimizer.

    Args:
      base: any optimizer.
      guess, mode, scope, eps, target, key, sampler, space: see `project_onto_guess`.

    Returns:
      The optimizer, with the state of the base, and a counter and a key for drawn guesses.

    Raises:
      ValueError: for an unknown choice or a missing input.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import forward_gradient_local
      >>> opt = forward_gradient_local(optax.sgd(1.0))
      >>> x = jnp.array([3.0, 4.0])
      >>> u, _ = opt.update(x, opt.init(x), x, guess=jnp.array([1.0, 0.0]))
      >>> u.tolist()
      [-3.0, -0.0]

    References:
      Fournier et al. 2023 (arXiv 2306.06968); streethagore/ForwardLocalGradient.
    """
    projection = project_onto_guess(mode, eps, scope, guess, target, key, sampler, space)
    return chain(projection, base)

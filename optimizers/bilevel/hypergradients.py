"""The gradient of the upper loss through the minimum of the lower one."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import FlowError, Length, NonNegativeConstant, PositiveConstant, Size, checked
from ...transforms.notation.known import repeat
from ...transforms.notation.roots import power_of_two_below
from ...transforms.notation.values import working
from .stepper import Loss, check_losses, hessian_product, mixed_product, moved

PAPER = "Lorraine, Vicol & Duvenaud 2020, Optimizing Millions of Hyperparameters by Implicit "

Solve = Callable[[optax.Params], tuple[optax.Params, Any]]
"""`upper -> (lower, anything)`: the steps at the lower level, from where it stands."""

Hypergradient = Callable[[Loss, Loss, optax.Params, Solve], tuple[optax.Updates, optax.Params, Any]]
"""`(upper_loss, lower_loss, upper, solve) -> (gradient, lower, anything)`, as `solve` gave them."""

Inverse = Callable[[Callable[[optax.Params], optax.Params], optax.Params], optax.Params]
"""`(product with H, v) -> about H^{-1} v`."""


@checked()
def neumann_series(step: PositiveConstant, terms: Length = 20) -> Inverse:
    r"""The first terms of the series of an inverse Hessian.

    .. math::
        H^{-1} v \approx \alpha \sum_{j=0}^{K} (I - \alpha H)^j v

    It converges for a positive definite H of norm below 2 / alpha; along negative curvature the
    terms grow.

    Args:
      step: alpha; that of the lower level's gradient descent.
      terms: K; 0 is alpha v.

    Returns:
      `(product, v) -> about H^{-1} v`, with `product` a function v -> H v.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import neumann_series
      >>> neumann_series(0.25, terms=2)(lambda v: 2 * v, jnp.array([8.0])).tolist()   # 4 at last
      [3.5]

    References:
      Lorraine, Vicol & Duvenaud 2020 (arXiv 1911.02590), algorithm 3.
    """

    def inverse(product: Callable[[optax.Params], optax.Params], v: optax.Params) -> optax.Params:
        def add(
            _: int | jax.Array, carry: tuple[optax.Params, optax.Params]
        ) -> tuple[optax.Params, optax.Params]:
            term, total = carry
            term = moved(term, step, product(term))
            return term, jax.tree.map(jnp.add, total, term)

        _, total = repeat(terms, add, (v, v))
        return jax.tree.map(lambda x: jnp.asarray(step, x.dtype) * x, total)

    return inverse


def _conjugate_gradients(max_steps: int, tol: float | jax.Array) -> Inverse:
    def inverse(product: Callable[[optax.Params], optax.Params], v: optax.Params) -> optax.Params:
        # In units of both sides: <p, H p> of entries of 1e-16 vanishes in float32.
        v_size = _largest(v)
        right = _over(v, v_size)
        h_size = _largest(product(right))
        rounding = max((float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(v)), default=0.0)
        found, _ = jax.scipy.sparse.linalg.cg(
            lambda q: _over(product(q), h_size),
            right,
            tol=tol,
            # where tol is 0: products with what rounding leaves would vanish
            atol=rounding,
            maxiter=max_steps,
        )
        return jax.tree.map(lambda x: x / h_size.astype(x.dtype) * v_size.astype(x.dtype), found)

    return inverse


def _largest(tree: optax.Params) -> jax.Array:
    """The power of two just below the largest entry of a tree."""
    largest = jnp.zeros((), jnp.result_type(float))
    for leaf in jax.tree.leaves(tree):
        largest = jnp.maximum(largest, jnp.max(jnp.abs(leaf), initial=0).astype(largest.dtype))
    return power_of_two_below(largest)


def _over(tree: optax.Params, size: jax.Array) -> optax.Params:
    return jax.tree.map(lambda x: x / size.astype(x.dtype), tree)


def _implicit(inverse: Inverse) -> Hypergradient:
    def hypergradient(
        upper_loss: Loss, lower_loss: Loss, upper: optax.Params, solve: Solve
    ) -> tuple[Any, Any, Any]:
        lower, state = solve(upper)
        direct, v = jax.grad(upper_loss, argnums=(0, 1))(upper, lower)
        p = inverse(lambda q: working(hessian_product(lower_loss, upper, lower, q)), working(v))
        through = mixed_product(lower_loss, upper, lower, p)
        return jax.tree.map(jnp.subtract, direct, through), lower, state

    return hypergradient


@method(
    f"{PAPER}Differentiation",
    arxiv="1911.02590",
    tags=("bilevel", "curvature"),
    kind="estimator",
    required={"step": 0.1},
)
@checked()
def ift_neumann(step: PositiveConstant, terms: Length = 20) -> Hypergradient:
    r"""The implicit hyper-gradient, with a Neumann series in place of the inverse Hessian.

    .. math::
        \frac{dF}{dx} = \nabla_x f - \nabla_{xy}^2 g\, p, \qquad
        p = \alpha \sum_{j=0}^{K} (I - \alpha H)^j \nabla_y f \approx H^{-1} \nabla_y f

    with f the upper loss, g the lower one and H its Hessian in the lower variable. A piece for
    `bilevel`; `implicit_hypergradient` is the same as a function.

    Args:
      step: alpha; that of the lower level's gradient descent, below 2 over its smoothness.
      terms: K; 0 differentiates the last lower step alone.

    Returns:
      The piece: `(upper_loss, lower_loss, upper, solve) -> (gradient, lower, state)`, with
      `solve(upper) -> (lower, state)`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import ift_neumann
      >>> f = lambda x, y: jnp.sum(y**2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2)
      >>> x = jnp.array([3.0])
      >>> ift_neumann(0.5)(f, g, x, lambda x: (x, None))[0].tolist()    # y = x at the minimum
      [3.0]

    References:
      Lorraine, Vicol & Duvenaud 2020, Optimizing Millions of Hyperparameters by Implicit
      Differentiation (arXiv 1911.02590), and the main script of the authors' code, which has the
      factor alpha that two of its other files omit.
    """
    return _implicit(neumann_series(step, terms))


@checked()
def conjugate_gradient_hypergradient(
    max_steps: Size = 20, tol: NonNegativeConstant = 1e-5
) -> Hypergradient:
    """The implicit hyper-gradient, its system solved by conjugate gradients.

    A piece for `bilevel`, as `ift_neumann`; the Hessian must be positive definite.

    Args:
      max_steps: steps at most, of a Hessian-vector product each; one more tells the Hessian's size.
      tol: of the residual, relative to the right-hand side; rounding where it is less.

    Returns:
      The piece.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import conjugate_gradient_hypergradient
      >>> f = lambda x, y: jnp.sum(y**2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2)
      >>> x = jnp.array([3.0])
      >>> conjugate_gradient_hypergradient()(f, g, x, lambda x: (x, None))[0].tolist()
      [3.0]

    References:
      Pedregosa 2016, Hyperparameter optimization with approximate gradient (arXiv 1602.02355).
    """
    return _implicit(_conjugate_gradients(max_steps, tol))


def unrolled_hypergradient() -> Hypergradient:
    """The hyper-gradient through the steps at the lower level that were made.

    A piece for `bilevel`, as `ift_neumann`: the exact gradient of the upper loss after these steps,
    from where the lower level stood, which keeps all of them in memory.

    Returns:
      The piece.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import unrolled_hypergradient
      >>> f = lambda x, y: jnp.sum(y**2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2)
      >>> x, start = jnp.array([3.0]), 1.0
      >>> half_way = lambda x: (start - 0.25 * 2 * (start - x), None)
      >>> unrolled_hypergradient()(f, g, x, half_way)[0].tolist()     # y = 2, dy / dx = 1 / 2
      [1.0]

    References:
      Franceschi et al. 2018, Bilevel Programming for Hyperparameter Optimization and Meta-Learning
      (arXiv 1806.04910).
    """

    def hypergradient(
        upper_loss: Loss, lower_loss: Loss, upper: optax.Params, solve: Solve
    ) -> tuple[Any, Any, Any]:
        lower, pull_back, state = jax.vjp(solve, upper, has_aux=True)
        direct, v = jax.grad(upper_loss, argnums=(0, 1))(upper, lower)
        return jax.tree.map(jnp.add, direct, pull_back(v)[0]), lower, state

    return hypergradient


@checked()
def implicit_hypergradient(
    train_fn: Loss,
    val_fn: Loss,
    params: optax.Params,
    hypers: optax.Params,
    step: PositiveConstant,
    terms: Length = 20,
    method: Literal["neumann", "cg", "identity"] = "neumann",
) -> Any:
    """The gradient of a validation loss in hyper-parameters, at params that minimise the training.

    The rule is that of `ift_neumann`. Once every few hundred steps of training, from params that
    are never started anew, its result goes to any optimizer of the hyper-parameters.

    Args:
      train_fn: (params, hypers) -> training loss.
      val_fn: (params, hypers) -> validation loss, on the same minibatch for all it is asked.
      params: about a minimum of the training loss.
      hypers: tree of hyper-parameters.
      step: of "neumann"; the rate at which the params were trained.
      terms: of the series; for "cg" the most Hessian-vector products.
      method: how the inverse Hessian is applied; "identity" leaves it out.

    Returns:
      A tree like `hypers`.

    Raises:
      ValueError: for a hyper-parameter out of range, or functions that return no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import implicit_hypergradient
      >>> train = lambda w, l: jnp.sum((w - 2.0) ** 2) / 2 + l * jnp.sum(w**2) / 2
      >>> val = lambda w, l: jnp.sum((w - 1.0) ** 2) / 2
      >>> w = jnp.array([2.0])                          # minimum at l = 0, where dw / dl = -2
      >>> float(implicit_hypergradient(train, val, w, jnp.array(0.0), step=1.0))
      -2.0

    References:
      Lorraine, Vicol & Duvenaud 2020 (arXiv 1911.02590); see `ift_neumann`.
    """
    upper_loss = lambda l, w: val_fn(w, l)  # noqa: E731
    lower_loss = lambda l, w: train_fn(w, l)  # noqa: E731
    check_losses("implicit_hypergradient", hypers, params, val_fn=upper_loss, train_fn=lower_loss)
    if method == "cg" and terms < 1:
        raise FlowError(f"implicit_hypergradient: terms={terms} must be at least 1 for 'cg'")
    inverses: dict[str, Callable[[], Inverse]] = {
        "neumann": lambda: neumann_series(step, terms),
        "cg": lambda: _conjugate_gradients(terms, 0.0),
        "identity": lambda: lambda product, v: v,
    }
    piece = _implicit(inverses[method]())
    return piece(upper_loss, lower_loss, hypers, lambda _: (params, None))[0]

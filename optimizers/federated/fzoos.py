"""FZooS: federated zeroth-order optimization by gradients of surrogates."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    NonNegative,
    PositiveConstant,
    Signal,
    chain,
    flow,
    lift_tree,
    scale_by_adam,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.notation.checks import checked
from ...transforms.notation.values import Leaves, fit_scalar


class Surrogate(NamedTuple):
    """A Gaussian process that has seen a history; its posterior mean and that one's gradient.

    Attributes:
      points: of the history, one a row.
      weights: of the kernel at each of them.
      low: the least value of the history.
      width: the largest less the least.
      radial: `squared distance -> (kernel, weight of point - x in its gradient)`.
    """

    points: Any
    weights: Any
    low: Any
    width: Any
    radial: Callable[[Any], tuple[Any, Any]]

    def mean(self, x: Any) -> Any:
        """The posterior mean at a point."""
        kernel, _ = self.radial(_squares(x, self.points))
        return self.width * (kernel @ self.weights) + self.low

    def gradient(self, x: Any) -> Any:
        """The gradient of the posterior mean at a point."""
        _, slope = self.radial(_squares(x, self.points))
        return self.width * ((slope * self.weights) @ (self.points - x))


class SurrogateFitter(NamedTuple):
    """`fit(history_x, history_y) -> Surrogate`."""

    fit: Callable[[Any, Any], Surrogate]


@checked()
def trajectory_gradient_surrogate(
    kernel: Literal["matern52", "rbf"] = "matern52",
    lengthscale: PositiveConstant = 1.0,
    noise: PositiveConstant = 1e-6,
) -> SurrogateFitter:
    r"""Gradients of a function of which only values along a trajectory are known.

    With the values y at points X scaled to :math:`\tilde y` in [0, 1]:

    .. math::
        a = (K + s I)^{-1} \tilde y, \qquad
        g(x) = (\max y - \min y) \sum_j a_j \nabla_x k(x, x_j)

    Where all values are the same the gradient is 0. Fit in float64 where points lie close together.

    Args:
      kernel: "matern52", or "rbf": exp(-|x - x'|^2 / (2 l^2)).
      lengthscale: l.
      noise: s, without which points that repeat make K singular.

    Returns:
      What fits a `Surrogate`, with `mean(x)` and `gradient(x)`, to points in rows and their values.

    Raises:
      ValueError: for a hyper-parameter out of range; by `fit`, for points and values that do not
        belong together.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import trajectory_gradient_surrogate
      >>> X = jnp.linspace(-1.0, 1.0, 9)[:, None]
      >>> surrogate = trajectory_gradient_surrogate(noise=1e-4).fit(X, X[:, 0] ** 2)
      >>> round(float(surrogate.gradient(jnp.array([0.5]))[0]), 1)
      1.0

    References:
      Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate
      Gradients (arXiv 2308.04077). shuyao95/FZooS fits the hyper-parameters anew at every step, and
      takes differences in place of the gradient.
    """
    radial = {"matern52": _matern52, "rbf": _rbf}[kernel]

    def fit(history_x: Any, history_y: Any) -> Surrogate:
        points = jnp.asarray(history_x, jnp.result_type(float))
        values = jnp.asarray(history_y, points.dtype)
        if points.ndim != 2 or values.shape != points.shape[:1] or not len(points):
            raise FlowError(
                f"trajectory_gradient_surrogate: history_x must be points in rows and history_y a "
                f"value for each; they have the shapes {points.shape} and {values.shape}"
            )

        def scaled(squares: Any) -> tuple[Any, Any]:
            value, slope = radial(squares / lengthscale**2)
            return value, slope / lengthscale**2

        low = jnp.min(values)
        width = jnp.max(values) - low
        gram, _ = scaled(jax.vmap(_squares, (0, None))(points, points))
        system = gram + noise * jnp.eye(len(points), dtype=points.dtype)
        factor = jax.scipy.linalg.cho_factor(system)
        weights = jax.scipy.linalg.cho_solve(factor, (values - low) / (width + 1e-20))
        return Surrogate(points, weights, low, width, scaled)

    return SurrogateFitter(fit)


def _squares(x: Any, points: Any) -> Any:
    return jnp.sum((points - x) ** 2, axis=-1)


def _rbf(squares: Any) -> tuple[Any, Any]:
    value = jnp.exp(-squares / 2)
    return value, value


def _matern52(squares: Any) -> tuple[Any, Any]:
    # the closed form of the slope needs no derivative of the root at 0
    r = jnp.sqrt(5 * squares)
    decay = jnp.exp(-r)
    return (1 + r + 5 * squares / 3) * decay, 5 / 3 * (1 + r) * decay


@method(
    "Shu et al. 2023, Federated Zeroth-Order Optimization using Trajectory-Informed Surrogate "
    "Gradients",
    arxiv="2308.04077",
    tags=("workers", "tracked-mean"),
    learning_rate=0.01,
)
@transformation()
def fzoos_client(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    gamma: NonNegative = 1.0,
    base: optax.GradientTransformation | None = None,
) -> Flow:
    r"""A client's steps along surrogate gradients, corrected by what the server knows.

    At its local step t, with the gradient g of its own surrogate, and those of the server's and of
    its own of the last round at the same point:

    .. math::
        d = g + \frac \gamma t (g_{\text{server}} - g_{\text{client}})

    and d goes to the base optimizer. The state starts anew in every round.

    Args:
      learning_rate: number or schedule.
      gamma: strength of the correction.
      base: the direction that d is sent through, without a rate; default Adam's.

    Returns:
      The optimizer; its state is that of the base. Its update takes the extra arguments
      `server_gradient` and `client_gradient`; without both, as in the first round, nothing is
      corrected. Surrogates are fitted by `trajectory_gradient_surrogate`.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import fzoos_client
      >>> opt, g = fzoos_client(1.0, base=optax.identity()), jnp.array([1.0])
      >>> opt.update(g, opt.init(g), g, server_gradient=3 * g, client_gradient=g)[0].tolist()
      [-3.0]

    References:
      Shu et al. 2023 (arXiv 2308.04077), with the length gamma / t of shuyao95/FZooS.
    """

    def step(
        g: Signal, server_gradient: Signal | None = None, client_gradient: Signal | None = None
    ) -> Signal:
        return _corrected(g, server_gradient, client_gradient, scheduled(gamma) / step_count())

    direction = scale_by_adam() if base is None else base
    return chain(flow(step, name="correction"), direction, scale_by_learning_rate(learning_rate))


def _corrected_of(g: Leaves, server: Any, client: Any, share: Any) -> Leaves:
    if server is None and client is None:
        return g
    if not isinstance(server, Leaves) or not isinstance(client, Leaves):
        raise ValueError("server_gradient and client_gradient must both be trees like the params")
    return g.map(
        lambda x, s, c: x + fit_scalar(jnp.asarray(share), x.dtype) * (s - c), server, client
    )


_corrected = lift_tree(_corrected_of, "correction", out=0)

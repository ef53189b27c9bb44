"""The extragradient method."""

import optax

from ...registry import method
from ...transforms import Flow, Signal, flow, scheduled, transformation
from ...transforms.closures import gradient_at
from ...transforms.projections import check_projection, onto
from ...transforms.projections.applied import Projection


@method(
    "Korpelevich 1976, The extragradient method for finding saddle points and other problems",
    tags=("closure", "games"),
    learning_rate=0.1,
)
@transformation()
def extragradient(
    learning_rate: optax.ScalarOrSchedule,
    extrapolation_rate: optax.ScalarOrSchedule | None = None,
    projection: Projection | None = None,
) -> Flow:
    r"""Steps from where it is, along the field at the point where a first step would have led.

    With V the vector field of a game, every player's gradient of its own loss at the joint point:

    .. math::
        X_{t+1/2} = \Pi(X_t - \eta_t V(X_t)), \qquad X_{t+1} = \Pi(X_t - \gamma_t V(X_{t+1/2}))

    The incoming gradients are V(X_t). In a bilinear game, where descent circles outwards, this
    converges. Nothing may follow it in a chain: with a projection the update is no multiple of the
    field.

    Args:
      learning_rate: gamma; number or schedule.
      extrapolation_rate: eta, number or schedule; default gamma.
      projection: Pi, a set of `transforms.projections` or any function from a tree to the nearest
        tree in a set, or a tree of such, one for each player; default none.

    Returns:
      The optimizer; it needs `params` and, for a second evaluation, `grad_fn`, the field as a
      function of the params, or for a minimisation `value_fn`. No state but the count of schedules.

    Raises:
      ValueError: for a hyper-parameter out of range, or what is no projection.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import extragradient
      >>> field = lambda z: jnp.array([z[1], -z[0]])         # of the game x y
      >>> opt, z = extragradient(0.5), jnp.array([1.0, 0.0])
      >>> opt.update(field(z), opt.init(z), z, grad_fn=field)[0].tolist()
      [-0.25, 0.5]

    References:
      Korpelevich 1976; as the two-call method in Hsieh, Iutzeler, Malick & Mertikopoulos 2019, On
      the convergence of single-call stochastic extra-gradient methods (arXiv 1908.08465). There is
      no official code. The stochastic analysis takes two independent samples: `grad_fn` may close
      over a second batch.
    """
    check_projection("extragradient", projection)
    extrapolation = learning_rate if extrapolation_rate is None else extrapolation_rate

    def step(
        g: Signal, params: Signal, value_fn: Signal | None = None, grad_fn: Signal | None = None
    ) -> Signal:
        half = onto(projection, params - scheduled(extrapolation) * g)
        v = gradient_at(half, value_fn, grad_fn)
        return onto(projection, params - scheduled(learning_rate) * v) - params

    return flow(step)

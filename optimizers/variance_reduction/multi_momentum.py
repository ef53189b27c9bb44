"""Multi-momentum: an average of gradients for each cluster of the data."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    FlowError,
    Fraction,
    Hyperparameter,
    Mask,
    NonNegative,
    Signal,
    Size,
    chain,
    decay_weights,
    delay,
    ema,
    flow,
    handed_on,
    lift,
    lift_tree,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
)
from ...transforms import momentum as momentum_in_form
from ...transforms.notation.context import Context
from ...transforms.notation.known import is_known
from ...transforms.notation.values import Leaves
from ...transforms.objectives import bare_array, check_vector
from ...transforms.objectives.preferences import Vector


@transformation()
def scale_by_cluster_variance_reduction(
    num_clusters: Size, decay: Decay = 0.9, cluster_weights: Vector | None = None
) -> Flow:
    r"""The gradient less what is usual for its cluster, plus what is usual for all.

    The data lie in K clusters of relative sizes :math:`\pi_k`; the minibatch of the step is of
    cluster c:

    .. math::
        v &= g - M_c + \sum_k \pi_k M_k \\
        M_c &\leftarrow \beta M_c + (1 - \beta) g

    with all memories 0 at first. Where clusters are visited in proportion to their sizes, v has the
    mean of g, without the variance between clusters. It stands in front of any optimizer.

    Args:
      num_clusters: K.
      decay: beta, of the memories.
      cluster_weights: pi, a number for each cluster; default 1 / K.

    References:
      Tondji, Kashubin & Cisse 2021, Variance Reduction in Deep Learning: More Momentum is All You
      Need (arXiv 2111.11828); Yuan, Ying & Sayed 2019, COVER. There is no official code.
    """
    check_vector("scale_by_cluster_variance_reduction", "cluster_weights", cluster_weights)
    if cluster_weights is not None and len(cluster_weights) != num_clusters:
        raise FlowError(
            f"scale_by_cluster_variance_reduction: cluster_weights has {len(cluster_weights)} "
            f"entries for num_clusters={num_clusters}"
        )

    def here(cluster: int | jax.Array, table: jax.Array) -> jax.Array:
        if is_known(cluster) and not 0 <= int(cluster) < num_clusters:
            raise FlowError(f"cluster={int(cluster)} must be from 0 to {num_clusters - 1}")
        return (jnp.arange(num_clusters) == cluster).reshape(-1, *[1] * (table.ndim - 1))

    def memory(table: Leaves, cluster: int | jax.Array, _: Leaves) -> Leaves:
        return table.map(
            lambda t: jnp.sum(jnp.where(here(cluster, t), t, jnp.zeros_like(t)), axis=0)
        )

    def replaced(table: Leaves, cluster: int | jax.Array, new: Leaves) -> Leaves:
        return table.map(lambda t, x: jnp.where(here(cluster, t), x[None], t), new)

    def share(context: Context, cluster: int | jax.Array) -> jax.Array:
        given = [1 / num_clusters] * num_clusters if cluster_weights is None else cluster_weights
        sizes = jnp.asarray(given, context.scalar_dtype)
        return jnp.sum(jnp.where(here(cluster, sizes), sizes, 0))

    def stacked(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.zeros_like(x)] * num_clusters)

    entry = lift_tree(memory, "memory", out=2)
    updated = lift_tree(replaced, "memories", out=0)
    size = lift_tree(share, "cluster_weight", context=True, out="scalar")

    def step(g: Signal, cluster: Signal) -> Signal:
        number = bare_array(cluster)
        memories = delay(lift(stacked, "stacked")(g), name="memories")
        mean = delay(g, name="mean_memory")
        own = entry(memories, number, g)
        new = decay * own + (1 - scheduled(decay)) * g
        memories << updated(memories, number, new)
        v = g - own + mean
        mean << mean + size(number) * (new - own)
        return v

    return flow(step)


@method(
    "Tondji, Kashubin & Cisse 2021, Variance Reduction in Deep Learning: More Momentum is All You "
    "Need",
    arxiv="2111.11828",
    tags=("tracked-mean", "momentum"),
    learning_rate=0.05,
    required={"num_clusters": 2},
)
@transformation()
def multi_momentum(
    learning_rate: optax.ScalarOrSchedule,
    num_clusters: Size,
    cluster_weights: Vector | None = None,
    decay: Decay = 0.9,
    base: Literal["sgd", "sgdm", "qhm", "igt"] = "sgdm",
    momentum: Decay = 0.9,
    nu: Fraction = 0.7,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    r"""Descent along gradients without the variance between clusters of the data.

    The rule is that of `scale_by_cluster_variance_reduction`; with its v

        sgd    u = v
        sgdm   b <- momentum b + v,   u = b
        qhm    b <- momentum b + (1 - momentum) v,   u = (1 - nu) v + nu b
        igt    a <- (t-1)/t a + 1/t v,   then as sgdm of a

    and the params move by -learning_rate u. For "igt", implicit gradient transport, gradients are
    taken at x_t + (t - 1) (x_t - x_{t-1}), where the loop's params are; the weights x_t are those
    of `eval_params`.

    Args:
      learning_rate: number or schedule, outside the momentum.
      num_clusters, cluster_weights, decay: see `scale_by_cluster_variance_reduction`.
      base: one of the above.
      momentum: of the base, in [0, 1).
      nu: of "qhm", in [0, 1].
      weight_decay: added to the gradient, times the params; it enters the memories.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is K + 1 buffers of the params' size, and that of the base. Its
      update needs the extra argument `cluster`, the number of the minibatch's cluster.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for a cluster that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import multi_momentum
      >>> opt, x = multi_momentum(1.0, num_clusters=2, decay=0.5, base="sgd"), jnp.zeros(1)
      >>> state, moved = opt.init(x), []
      >>> for cluster, g in [(0, 4.0), (1, 2.0), (0, 4.0)]:
      ...     updates, state = opt.update(jnp.array([g]), state, x, cluster=cluster)
      ...     moved.append(float(updates[0]))
      >>> moved
      [-4.0, -3.0, -3.5]

    References:
      Tondji, Kashubin & Cisse 2021 (arXiv 2111.11828). There is no official code, and this rests on
      the paper alone.
    """
    reduced = chain(
        decay_weights(weight_decay, mask=mask), handed_on(scale_by_cluster_variance_reduction)
    )
    if base == "igt":
        return chain(reduced, _transported(learning_rate, momentum))
    return chain(reduced, _based(base, momentum, nu), scale_by_learning_rate(learning_rate))


def _based(base: str, momentum: Hyperparameter, nu: Hyperparameter) -> Flow:
    if base == "qhm":
        return flow(lambda v: _mixed(v, v >> ema(momentum, name="mu"), nu), name="qhm")
    return momentum_in_form(0.0 if base == "sgd" else momentum, "heavy_ball")


def _mixed(v: Signal, m: Signal, nu: Hyperparameter) -> Signal:
    return (1 - scheduled(nu)) * v + nu * m


def _transported(learning_rate: Any, momentum: Any) -> Flow:
    """Implicit gradient transport: the update of the point where gradients are taken."""

    def step(v: Signal, params: Signal) -> Signal:
        weights = delay(params, name="weights", evaluation=(1.0, 0.0))
        mean = delay(v, name="transported")
        t = step_count()
        a = mean << ((t - 1) * mean + v) / t
        moved = -scheduled(learning_rate) * (a >> momentum_in_form(momentum, "heavy_ball"))
        new = weights << weights + moved
        return new + t * moved - params

    return flow(step, name="igt")

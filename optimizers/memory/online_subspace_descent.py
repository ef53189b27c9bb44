"""Online subspace descent."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Number,
    Period,
    Positive,
    Signal,
    Size,
    chain,
    decay_weights,
    flow,
    handed_on,
    interpolated_momentum,
    leaf_where,
    low_rank,
    named,
    scale_by_adam,
    scale_by_learning_rate,
    sign,
    transformation,
)
from ...transforms.directions import scale_by_lion
from ...transforms.step_size import relative_rate
from ...transforms.subspaces import descending_basis

Base = Literal["adam", "lion", "sgd"]
ProjectionOptimizer = Literal["adamw", "sgd", "lion"] | optax.GradientTransformation


@transformation()
def scale_by_online_subspace_descent(
    rank: Size = 128,
    update_interval: Period = 50,
    scale: Number = 1.0,
    base: Base = "adam",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    projection_optimizer: ProjectionOptimizer = "adamw",
    projection_rate: NonNegative = 1.0,
    orthogonality_penalty: NonNegative = 0.0,
    project: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Adam, Lion or the plain gradient in a subspace that follows the gradients.

        L_t = g_t P_t^T                                 (m >= n; P_t^T g_t otherwise)
        u_t = scale sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps) P_t        "adam"
        u_t = sign((b1 m_{t-1} + (1 - b1) L_t) P_t)                                "lion"
        u_t = scale L_t P_t                                                        "sgd"
        P_{t+1} = (1 - 0.01 e_t) P_t - e_t adam(grad J(P_t)),   e_t = projection_rate / k

    with J what P leaves out of g_t / |g_t|, see `transforms.subspaces.descending_basis`; P starts
    at the leading singular vectors of g_1 and moves from the second step on.

    Args:
      rank: vectors.
      update_interval: k; P moves at every step, by 1 / k.
      scale: factor of the projected leaves' updates.
      base: "adam", "lion" or "sgd".
      b1, b2, eps: of the base rule; Lion's usual b2 is 0.99.
      projection_optimizer: how P descends: "adamw" as above, "sgd" or "lion" without decay, or any
        transformation that gives a direction.
      projection_rate: the learning rate as a multiple of that at which P moves by 1 / k.
      orthogonality_penalty: weight of |P P^T - I|^2 in J.
      project: leaves to be projected: a predicate of a leaf, a tree of booleans, or a function of
        the params; default matrices both of whose sides are longer than `rank`. The others get the
        base rule as it is.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Raises:
      FlowError: in `init`, for a leaf that `project` selects and that has a side shorter than
        `rank`.

    References:
      Liang et al. 2024, Memory-Efficient LLM Training with Online Subspace Descent (arXiv
      2408.12857). As in the authors' code the gradient in J is normalised and there is no penalty,
      which the paper has; P's decay of 0.01 is that of torch's AdamW.
    """
    named_rules = {
        "adamw": lambda: scale_by_adam(0.9, 0.999, 1e-8),
        "sgd": lambda: flow(lambda d: d),
        "lion": lambda: scale_by_lion(),
    }
    given = projection_optimizer
    rule = named_rules[given]() if isinstance(given, str) else given
    basis = descending_basis(
        rank,
        named("projection_optimizer", rule),
        projection_rate,
        update_interval,
        0.01 if given == "adamw" else 0.0,
        orthogonality_penalty,
    )
    inner = {
        "adam": lambda: handed_on(scale_by_adam, eps_before_correction=True),
        "lion": lambda: named("mu", interpolated_momentum(b1, b2, dtype=mu_dtype)),
        "sgd": lambda: flow(lambda g: g),
    }[base]()
    wide = leaf_where(lambda leaf: leaf.ndim == 2 and min(leaf.shape) > rank)
    direction = low_rank(inner, basis, scale=scale, select=wide if project is None else project)
    return flow(lambda g: sign(g >> direction)) if base == "lion" else direction


@method(
    "Liang et al. 2024, Memory-Efficient LLM Training with Online Subspace Descent",
    arxiv="2408.12857",
    tags=("low-memory", "low-rank", "matrix"),
    small_model={"rank": 2, "update_interval": 10},
)
@transformation()
def online_subspace_descent(
    learning_rate: optax.ScalarOrSchedule,
    rank: Size = 128,
    update_interval: Period = 50,
    scale: Number = 1.0,
    base: Base = "adam",
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    projection_optimizer: ProjectionOptimizer = "adamw",
    reference_lr: Positive | None = None,
    orthogonality_penalty: NonNegative = 0.0,
    project: Mask | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Online subspace descent; the rule is that of `scale_by_online_subspace_descent`.

    Args:
      learning_rate: number or schedule.
      rank, update_interval, scale, base, b1, b2, eps, projection_optimizer, orthogonality_penalty,
        project: see `scale_by_online_subspace_descent`.
      weight_decay: decay of the params after the step, multiplied by the rate; not projected.
      reference_lr: the rate at which P moves by 1 / k; default that of the first step. Give the
        peak of a schedule that starts at 0.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.
      mu_dtype, nu_dtype: see `scale_by_online_subspace_descent`.

    Returns:
      The optimizer. For an (m, n) matrix with m >= n its state is 2 m rank + 3 rank n; Lion and
      "sgd" store less.

    Raises:
      ValueError: for a hyper-parameter out of range, or a rate that starts at 0 without a
        reference.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import online_subspace_descent
      >>> opt = online_subspace_descent(0.5, rank=1)
      >>> params = jnp.diag(jnp.array([4.0, 2.0]))
      >>> print(opt.update(params, opt.init(params))[0].round(3) + 0.0)
      [[-0.5  0. ]
       [ 0.   0. ]]
    """

    def direction(g: Signal) -> Signal:
        relative = relative_rate(learning_rate, reference_lr, "online_subspace_descent")
        return g >> handed_on(scale_by_online_subspace_descent, projection_rate=relative)

    return chain(
        flow(direction, name="online_subspace_descent"),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "stepped", learning_rate=learning_rate, mask=mask),
    )

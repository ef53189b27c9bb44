"""MASHA: variational inequalities with compression both ways."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax
import optax
from jax.typing import ArrayLike

from ...registry import method
from ...transforms import (
    Flow,
    Fraction,
    Hyperparameter,
    Key,
    Mask,
    Signal,
    Size,
    delay,
    flow,
    saturate,
    scheduled,
    transformation,
    where,
)
from ...transforms.compression import Coded, exchange, of_vectors, rand_k, top_k
from ...transforms.trees import fold_key, random_key
from ...transforms.workers import ascending, coin, mean_when, of_worker, operator_at

Refresh = Literal["new", "old"]
DeviceCompressor = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
ServerCompressor = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class _Anchor:
    """The reference point w, and the operators there: the worker's own and the mean."""

    def __init__(
        self,
        g: Signal,
        params: Signal,
        tau: Hyperparameter,
        key: Signal,
        coin_fn: Any,
        refresh: str,
        axis: str | None,
    ) -> None:
        mine = of_worker(g, axis)
        w, own = delay(params, name="anchor"), delay(mine, name="own_operator")
        late = refresh == "new"
        # The gradient at z_k is the operator at w_k, where w_k is z_k.
        due = coin(key, 1 - scheduled(tau), coin_fn, late=late)
        first = coin(key, 0.0, lambda *_: False, late=True)
        takes = due if late else first
        share = 1.0 - tau if isinstance(tau, int | float) else 1.0
        sent = mean_when(due if late else due | first, mine, axis, share=share)
        mean = delay(sent, name="operator")
        self.point = where(takes, params, w)
        self.own = where(takes, mine, own)
        self.mean = where(takes, sent, mean)
        if late:
            w << self.point
            own << self.own
            mean << self.mean
        else:
            w << where(due, params, self.point)
            own << where(due, mine, self.own)
            mean << where(due, sent, self.mean)


def _half(anchor: _Anchor, params: Signal, gamma: Hyperparameter, tau: Hyperparameter) -> Signal:
    rate = scheduled(tau)
    return rate * params + (1 - rate) * anchor.point - gamma * anchor.mean


def _compressor(default: Coded, given: Any, key: Signal, per_worker: bool) -> Any:
    if given is not None:
        return of_vectors(given, key, per_worker)
    return default if default.key is None else replace(default, key=key)


@method(
    "Beznosikov et al. 2022, Distributed Methods with Compressed Communication for Solving "
    "Variational Inequalities, with Theoretical Guarantees",
    arxiv="2110.03313",
    tags=("workers", "games", "closure", "noise"),
    learning_rate=0.05,
    required={"tau": 0.5, "k_device": 8, "k_server": 8},
)
@transformation()
def masha1(
    learning_rate: optax.ScalarOrSchedule,
    tau: Fraction,
    k_device: Size,
    k_server: Size,
    ascent_mask: Mask | None = None,
    refresh: Refresh = "new",
    key: Key = 0,
    coin_fn: Callable[[jax.Array, jax.Array], ArrayLike] | None = None,
    compressor_device: DeviceCompressor | None = None,
    compressor_server: ServerCompressor | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""Extragradient steps from a reference point, with unbiased compression both ways.

    Worker m of M has the operator :math:`F_m`, F is their mean; Q are compressors, w the reference
    point, which starts at the params, as :math:`z_0`:

    .. math::
        z_{k+1/2} &= \tau z_k + (1 - \tau) w_k - \gamma F(w_k) \\
        z_{k+1} &= z_{k+1/2} - \gamma\, Q_s\Bigl( \frac 1 M \sum_m
            Q_d\bigl( F_m(z_{k+1/2}) - F_m(w_k) \bigr) \Bigr)

    and with probability 1 - tau, by one coin for all, w is the new iterate, where the operators are
    sent in full. The updates are the same on all workers. The incoming gradient is the worker's
    operator at z_k, and is read where w is z_k.

    Args:
      learning_rate: gamma; number or schedule.
      tau: in [0, 1]; 1 - tau about the share of the entries that is sent.
      k_device: entries that a worker sends, drawn at random (see `rand_k`), of all leaves together.
      k_server: entries that come back.
      ascent_mask: leaves on which there is ascent: there gradient and `operator_fn` are negated.
      refresh: "new": w becomes the new iterate; "old": the one before.
      key: seed or key of coins and compressors, the same on all workers.
      coin_fn: `(key, count) -> bool` in place of the coin; count is 0 at the first step.
      compressor_device: `(key, count, worker, vector) -> vector` in place of the random entries.
      compressor_server: `(key, count, vector) -> vector`, likewise; count is 0 at the first step.
      axis_name: the axis along which the workers lie; None: there is one.

    Returns:
      The optimizer; it needs `params` and `operator_fn` (params -> this worker's operator). Its
      state is three buffers of their size and a key.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for a missing input or an axis that
        is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import masha1
      >>> field = lambda z: jnp.array([z[1], -z[0]])         # of the game x y
      >>> opt, z = masha1(0.5, 0.5, 2, 2), jnp.array([1.0, 0.0])
      >>> opt.update(field(z), opt.init(z), z, operator_fn=field)[0].tolist()
      [-0.25, 0.5]

    References:
      Beznosikov et al. 2022 (arXiv 2110.03313). There is no official code; this rests on the paper
      alone.
    """

    def step(g: Signal, params: Signal, operator_fn: Signal) -> Signal:
        gamma, fresh = scheduled(learning_rate), random_key(key)
        device = _compressor(rand_k(k_device), compressor_device, fold_key(fresh, 1), True)
        server = _compressor(rand_k(k_server), compressor_server, fold_key(fresh, 2), False)
        F = ascending(g, ascent_mask)
        anchor = _Anchor(F, params, tau, fresh, coin_fn, refresh, axis_name)
        half = _half(anchor, params, gamma, tau)
        there = ascending(operator_at(half, operator_fn), ascent_mask)
        _, mean = exchange(saturate(there - anchor.own), device, axis_name)
        back, _ = exchange(saturate(mean), server)
        return half - gamma * back - params

    return flow(step)


@method(
    "Beznosikov et al. 2022, Distributed Methods with Compressed Communication for Solving "
    "Variational Inequalities, with Theoretical Guarantees",
    arxiv="2110.03313",
    tags=("workers", "games", "closure", "noise"),
    learning_rate=0.05,
    required={"tau": 0.5, "k_device": 8, "k_server": 8},
)
@transformation()
def masha2(
    learning_rate: optax.ScalarOrSchedule,
    tau: Fraction,
    k_device: Size,
    k_server: Size,
    ascent_mask: Mask | None = None,
    refresh: Refresh = "new",
    key: Key = 0,
    coin_fn: Callable[[jax.Array, jax.Array], ArrayLike] | None = None,
    compressor_device: DeviceCompressor | None = None,
    compressor_server: ServerCompressor | None = None,
    axis_name: str | None = None,
) -> Flow:
    r"""`masha1` with contractive compressors and error feedback on both ways.

    Worker m has an error :math:`e_m`, the server e, all of which start at 0:

    .. math::
        p_m &= \gamma \bigl( F_m(z_{k+1/2}) - F_m(w_k) \bigr) + e_m, \qquad
        e_m \leftarrow p_m - C_d(p_m) \\
        p &= \frac 1 M \sum_m C_d(p_m) + e, \qquad e \leftarrow p - C_s(p), \qquad
        z_{k+1} = z_{k+1/2} - C_s(p)

    Args:
      learning_rate: gamma; a number: the errors carry it.
      k_device: entries that a worker sends, the largest of all leaves together (see `top_k`).
      k_server: entries that come back.
      tau, ascent_mask, refresh, key, coin_fn, compressor_device, compressor_server, axis_name: see
        `masha1`.

    Returns:
      The optimizer; it needs `params` and `operator_fn`. Its state is five buffers of their size
      and a key.

    Raises:
      ValueError: for a hyper-parameter out of range; in update, for a missing input or an axis that
        is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import masha2
      >>> field = lambda z: jnp.array([z[1], -z[0]])         # of the game x y
      >>> opt, z = masha2(0.5, 0.5, 2, 2), jnp.array([1.0, 0.0])
      >>> opt.update(field(z), opt.init(z), z, operator_fn=field)[0].tolist()
      [-0.25, 0.5]

    References:
      As `masha1`.
    """

    def step(g: Signal, params: Signal, operator_fn: Signal) -> Signal:
        gamma, fresh = scheduled(learning_rate), random_key(key)
        device = _compressor(top_k(k_device), compressor_device, fold_key(fresh, 1), True)
        server = _compressor(top_k(k_server), compressor_server, fold_key(fresh, 2), False)
        F = ascending(g, ascent_mask)
        anchor = _Anchor(F, params, tau, fresh, coin_fn, refresh, axis_name)
        half = _half(anchor, params, gamma, tau)
        there = ascending(operator_at(half, operator_fn), ascent_mask)
        mine = delay(anchor.own, name="error")
        p = saturate(gamma * (there - anchor.own) + mine)
        sent, mean = exchange(p, device, axis_name)
        mine << p - sent
        ours = delay(mean, name="server_error")
        total = saturate(mean + ours)
        back, _ = exchange(total, server)
        ours << total - back
        return half - back - params

    return flow(step)

"""Bulyan: those that Krum trusts, entry by entry near their median."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Length
from ...transforms.notation.checks import checked
from ...transforms.notation.known import repeat
from .krum import sums_of_nearest
from .rows import Rows, by_entries, closest_mean, lower_median, relative, require_workers


@method(
    "El Mhamdi et al. 2018, The Hidden Vulnerability of Distributed Learning in Byzantium",
    arxiv="1802.07927",
    tags=("robust",),
    kind="rule",
    learning_rate=None,
    required={"num_byzantine": 1},
)
@checked()
def bulyan(
    num_byzantine: Length, variant: Literal["official", "paper"] = "official"
) -> Callable[[optax.Params], optax.Params]:
    r"""Krum's choice many times over, and of every coordinate the mean of those near the median.

    With n workers of which f may send anything, and the gradients in the order of Krum's scores for
    n - f - 2 neighbours, x_(1) first, "official" makes n - 2 f - 2 rows

    .. math::
        y_j = \operatorname{mean}(x_{(j)}, \dots, x_{(n - f - 2)})

    and gives for every coordinate the mean of the n - 4 f - 2 that are closest to their median.
    "paper" takes Krum's choice of the remaining ones, squared and anew each time, n - 2 f times,
    and the n - 4 f closest. The median is the lower one.

    Each coordinate of the result is no farther from any honest one than 3 D (1 + k / (k - f)),
    where D is the largest distance of two honest gradients and k = n - f - 2.

    Args:
      num_byzantine: f; n >= 4 f + 3 workers are needed.
      variant: one of the above.

    Returns:
      The rule: a function from a stacked tree to a tree.

    Raises:
      ValueError: for a hyper-parameter out of range; by the rule, for too few workers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import bulyan
      >>> seven = jnp.array([[1.0], [2.0], [2.0], [2.0], [3.0], [3.0], [-99.0]])
      >>> bulyan(num_byzantine=1)(seven).tolist()
      [2.3333334922790527]

    References:
      El Mhamdi et al. 2018 (arXiv 1802.07927); "official" as in
      LPD-EPFL/robust-collaborative-learning, where distances are not squared and scores are never
      computed anew: the branch that would do so cannot run.
    """

    def rule(stacked: optax.Params) -> optax.Params:
        rows = Rows.of("bulyan", stacked)
        n, f = len(rows), num_byzantine
        require_workers("bulyan", f, n, 4, 3)
        official = variant == "official"
        chosen = rows.weighted(_means(rows, f) if official else _choices(rows, f))
        keep = n - 4 * f - 2 if official else n - 4 * f

        def near_median(x: jax.Array) -> jax.Array:
            return closest_mean(x, lower_median(x), keep)

        return rows.tree([by_entries(near_median, x) for x in chosen])

    return rule


def _means(rows: Rows, f: int) -> jax.Array:
    """Weights of the rows of "official": place j to the last trusted, for each j."""
    trusted = len(rows) - f - 2
    scores = sums_of_nearest(relative(rows.distances()), trusted)
    place = jnp.argsort(jnp.argsort(scores, stable=True), stable=True)[None]
    first = jnp.arange(trusted - f)[:, None]
    share = 1 / (trusted - first).astype(scores.dtype)
    return jnp.where((place >= first) & (place < trusted), share, 0)


def _choices(rows: Rows, f: int) -> Any:
    """Rows of the identity: who is chosen, one after another."""
    n = len(rows)
    distances = jnp.square(relative(rows.distances()))

    def choose_one(turn: Any, carry: Any) -> Any:
        chosen, there = carry
        both = there[:, None] & there[None]
        neighbours = jnp.maximum(n - turn - f - 2, 1)
        scores = sums_of_nearest(jnp.where(both, distances, jnp.inf), neighbours)
        best = jax.nn.one_hot(jnp.argmin(jnp.where(there, scores, jnp.inf)), n, dtype=bool)
        return jnp.where(jnp.arange(n - 2 * f)[:, None] == turn, best[None], chosen), there & ~best

    start = jnp.zeros((n - 2 * f, n), bool), jnp.ones(n, bool)
    return repeat(n - 2 * f, choose_one, start)[0].astype(distances.dtype)

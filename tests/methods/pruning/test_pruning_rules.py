"""HESSO and sparse momentum beside transcriptions of their rules in NumPy."""

import math

import numpy as np
import pytest
from at_rest import draw, walk
from gradchain import optimizers as o
from trajectories import assert_close, falling

pytestmark = pytest.mark.usefixtures("x64")

STEPS, DECAY = 24, 0.1


def fed(shapes, steps=STEPS):
    """Params, and gradients whose sizes change from step to step."""
    return draw(3, shapes=shapes), [
        {k: 10 ** (t % 3 - 1) * g for k, g in draw(50 + t, shapes=shapes).items()}
        for t in range(steps)
    ]


# --- HESSO ----------------------------------------------------------------------------------------

GROUPS = [{"w": 0, "b": 0}, {"u": 1}, {"v": 1}]
LEAVES = {"w": (8, 6), "b": (8,), "u": (5, 4), "v": (4, 7), "c": (3,)}
SIZES = [8, 4, 7]
SETS = np.repeat(np.arange(3), SIZES)


def rows(x):
    """One vector per structure, set by set."""
    for group in GROUPS:
        yield from zip(*(np.moveaxis(x[k], axis, 0) for k, axis in group.items()), strict=True)


def scores(x, d, criteria):
    columns = []
    for own, slope in zip(rows(x), rows(d), strict=True):
        own, slope = (np.concatenate([np.ravel(part) for part in y]) for y in (own, slope))
        size, inner = np.linalg.norm(own), own @ slope
        columns.append(
            {
                "magnitude": size,
                "avg_magnitude": size / (own.size + 1e-6),
                "cosine_similarity": inner / (size + 1e-8) / (np.linalg.norm(slope) + 1e-8) + 1,
                "taylor_first_order": abs(inner),
                "taylor_second_order": 0.5 * inner**2,
            }
        )
    total = 0.0
    for name, weight in criteria.items():
        column = np.array([row[name] for row in columns])
        total = total + weight * column / (np.sqrt(np.sum(column**2) + 1e-8) + 1e-8)
    return total


def spared(chosen, gone, divisible):
    """What a set can spare of what is chosen, from the start."""
    for i, n in enumerate(SIZES):
        own = np.equal(SETS, i)
        mine, lost = np.flatnonzero(chosen & own), np.sum(gone & own)
        stay = -(-max(n - lost - len(mine), 1) // divisible) * divisible
        room = 0 if divisible > 1 and n <= divisible else max(n - lost - min(stay, n), 0)
        chosen[mine[room:]] = False
    return chosen


def faded(x, factor):
    x, first = dict(x), 0
    for group, n in zip(GROUPS, SIZES, strict=True):
        for k, axis in group.items():
            shape = np.where(np.arange(x[k].ndim) == axis, n, 1)
            x[k] = x[k] * factor[first : first + n].reshape(shape)
        first += n
    return x


EQUAL = dict.fromkeys(
    ("magnitude", "avg_magnitude", "cosine_similarity", "taylor_first_order",
     "taylor_second_order"), 0.2,
)  # fmt: skip


def hesso(x, grads, target, steps, start, periods, divisible, criteria, momentum, dampening):
    length, z, out = steps // periods, None, []
    most = int(sum(SIZES) * target)
    fading, gone = np.zeros((2, sum(SIZES)), bool)
    for t, g in enumerate(grads, 1):
        d = {k: g[k] + DECAY * x[k] for k in x}
        z = d if z is None else {k: momentum * z[k] + (1 - dampening) * d[k] for k in x}
        since = t - start
        period, place = divmod(since - 1, length)
        if since >= 1 and place == 0 and period < periods:
            gone, each = gone | fading, most // periods
            each = most - each * (periods - 1) if period == periods - 1 else each
            lowest = np.argsort(scores(x, z, criteria), kind="stable")[: gone.sum() + each]
            chosen = np.isin(np.arange(sum(SIZES)), lowest) & ~gone
            chosen &= np.cumsum(chosen) <= each
            fading = spared(chosen, gone, divisible)
        k = since % length
        moved = {name: x[name] - falling(t - 1) * z[name] for name in x}
        x = faded(moved, np.where(gone, 0, np.where(fading, (length - k - 1) / (length - k), 1)))
        if since >= 0 and k == length - 1:
            gone, fading = gone | fading, np.zeros_like(fading)
        out.append(x)
    return out


@pytest.mark.parametrize(
    "setting",
    [
        (0.5, 12, 0, 1, 1, EQUAL, 0.8, 0.3),
        (0.6, 12, 3, 3, 1, EQUAL, 0.0, 0.0),
        (0.7, 15, 5, 3, 4, {"magnitude": 1.0, "cosine_similarity": 2.0}, 0.5, 0.2),
    ],
)
def test_hesso(setting):
    target, steps, start, periods, divisible, criteria, momentum, dampening = setting
    opt = o.hesso(
        falling, GROUPS, target, pruning_steps=steps, start_pruning_step=start,
        pruning_periods=periods, group_divisible=divisible, criteria=criteria,
        momentum=momentum, dampening=dampening, weight_decay=DECAY,
    )  # fmt: skip
    x, grads = fed(LEAVES)
    wanted = hesso(x, grads, *setting)
    assert_close(walk(opt, x, grads), wanted)
    assert not np.all(wanted[-1]["v"])


# --- sparse momentum ------------------------------------------------------------------------------

KERNELS = {"w": (6, 4), "u": (5, 8), "q": (3, 4, 2), "b": (4,)}
FORM = {"prune_rate": 0.4, "prune_rate_end": 0.05, "momentum": 0.8, "b1": 0.8, "b2": 0.95}


class Masks:
    """The masks of the leaves, and the change that is made of them."""

    def __init__(self, masks, density):
        self.masks = masks
        self.budget = density * sum(mask.size for mask in masks.values())
        self.left_over, self.history = 0.0, []

    def change(self, x, salient, rate, redistribution):
        masks, sizes = self.masks, {k: mask.size for k, mask in self.masks.items()}
        active = {k: int(mask.sum()) for k, mask in masks.items()}
        share = {
            k: {
                "momentum": np.mean(salient[k][masks[k]]),
                "magnitude": np.mean(np.abs(x[k][masks[k]])),
                "nonzeros": float(np.sum(x[k] != 0)),
                "none": sizes[k] / self.budget,
            }[redistribution]
            for k in masks
        }
        share = {k: value / sum(share.values()) for k, value in share.items()}
        cap = {}
        for k, mask in masks.items():
            room = sizes[k] - active[k]
            crowded = room / sizes[k] < 0.2 and share[k] > 1 / len(masks)
            removed = math.ceil((min(room / sizes[k], rate) if crowded else rate) * active[k])
            if removed:
                order = np.argsort(np.argsort(np.abs(x[k]).ravel(), kind="stable"))
                masks[k] = (order >= room + removed).reshape(mask.shape)
            else:
                masks[k] = x[k] != 0
            cap[k] = 0.99 * (room + removed)
        pruned = sum(active[k] - masks[k].sum() for k in masks)
        quota = self._within(
            {k: math.ceil(share[k] * (pruned + self.left_over)) for k in masks}, cap
        )
        for k, mask in masks.items():
            order = np.argsort(-np.where(mask, -1, salient[k]).ravel(), kind="stable")
            mask.ravel()[order[: max(math.floor(quota[k]), 0)]] = True
        missing = self.budget - sum(mask.sum() for mask in masks.values())
        self.history.append(missing)
        self.left_over = 0.25 * self.left_over + 0.75 * missing + np.mean(self.history)

    @staticmethod
    def _within(quota, cap):
        share = 0.0
        for _ in range(1000):
            wanted = {k: quota[k] + share for k in quota}
            quota = {k: min(wanted[k], cap[k]) for k in quota}
            share = sum(wanted[k] - quota[k] for k in quota) / len(quota)
            if share == 0:
                break
        return quota


def sparse_momentum(x, grads, density, redistribution, decay, base, nesterov, start):
    masks, out = Masks({k: start[k].copy() for k in start}, density), []
    m, v = (dict.fromkeys(x, 0.0) for _ in range(2))
    at = {k: x[k] * start.get(k, 1) for k in x}
    for t, g in enumerate(grads, 1):
        d = {k: g[k] + 0.3 * at[k] for k in x}
        if base == "sgd":
            m = {k: 0.8 * m[k] + d[k] for k in x}
            u = {k: d[k] + 0.8 * m[k] if nesterov else m[k] for k in x}
            salient = {k: np.abs(m[k]) for k in x}
        else:
            m = {k: 0.8 * m[k] + 0.2 * d[k] for k in x}
            v = {k: 0.95 * v[k] + 0.05 * d[k] ** 2 for k in x}
            root = {k: np.sqrt(v[k] / (1 - 0.95**t)) + 0.1 for k in x}
            u = {k: m[k] / (1 - 0.8**t) / root[k] for k in x}
            salient = {k: np.abs(m[k]) / (np.sqrt(v[k]) + 1e-8) for k in x}
        at = {k: (at[k] - falling(t - 1) * u[k]) * masks.masks.get(k, 1) for k in x}
        if t % 3 == 0:
            rate = 0.05 + 0.35 * (1 + np.cos(np.pi * t / 40)) / 2
            masks.change(
                at, salient, 0.4 * (1 - t / 40) if decay == "linear" else rate, redistribution
            )
            at = {k: at[k] * masks.masks.get(k, 1) for k in x}
        out.append(at)
    return out


@pytest.mark.parametrize(
    ("density", "redistribution", "decay", "base", "nesterov"),
    [
        (0.5, "momentum", "cosine", "sgd", True),
        (0.4, "magnitude", "linear", "sgd", False),
        (0.85, "nonzeros", "cosine", "adam", False),
        (0.6, "none", "linear", "adam", False),
    ],
)
def test_sparse_momentum(density, redistribution, decay, base, nesterov):
    """From params that the mask has not met yet; a budget of 0.85 leaves no leaf room for it."""
    x, grads = fed(KERNELS)
    start = {k: y > 0 for k, y in draw(7, shapes=KERNELS).items() if y.ndim > 1}
    opt = o.sparse_momentum(
        falling, density, update_interval=3, prune_decay_steps=40, redistribution=redistribution,
        prune_rate_decay=decay, base=base, nesterov=nesterov, eps=0.1, weight_decay=0.3,
        init_mask={"b": None, **start}, **FORM,
    )  # fmt: skip
    wanted = sparse_momentum(x, grads, density, redistribution, decay, base, nesterov, start)
    assert_close(walk(opt, x, grads), wanted)

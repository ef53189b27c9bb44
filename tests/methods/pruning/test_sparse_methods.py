"""Sparse momentum, HESSO, HESSO-CRIC: what is peculiar to them."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    global_sparse_momentum,
    hesso,
    hesso_cric,
    hspg,
    magnitude_pruning,
    sparse_momentum,
    sparse_training,
    structured_pruning,
)

RNG = np.random.default_rng(3)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(8, 6)), jnp.float32),
    "u": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=8), jnp.float32),
}
GRADS = [
    {k: jnp.asarray(RNG.normal(size=p.shape), jnp.float32) for k, p in PARAMS.items()}
    for _ in range(30)
]


def run(opt, steps=30, params=PARAMS, **extra):
    opt = optax.with_extra_args_support(opt)
    state, step, found = opt.init(params), jax.jit(opt.update), []
    for grads in GRADS[:steps]:
        updates, state = step(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state


def zero_rows(x):
    return int(np.sum(np.all(np.asarray(x) == 0, axis=1)))


@pytest.mark.parametrize("redistribution", ["momentum", "magnitude", "nonzeros", "none"])
@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_sparse_momentum_keeps_to_its_budget(redistribution, decay):
    """The number of active entries stays near density N, though masks change."""
    opt = sparse_momentum(
        0.05,
        0.5,
        update_interval=3,
        prune_decay_steps=30,
        redistribution=redistribution,
        prune_rate_decay=decay,
        key=1,
    )
    early, _ = run(opt, 2)
    late, state = run(opt)
    before, after = (np.concatenate([p[-1][k].ravel() != 0 for k in "uw"]) for p in (early, late))
    assert np.any(before != after)
    active = sum(int(jnp.sum(state.mask[k])) for k in "uw")
    assert abs(active - 34) <= 6
    assert np.all(late[-1]["b"] != 0)


def test_any_optimizer_trains_sparsely():
    """Around SGD with momentum it is sparse_momentum; the state of a mask is a byte per entry."""
    form = {"update_interval": 2, "prune_decay_steps": 20}
    inner = optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, momentum=0.9))
    wrapped = sparse_training(inner, lambda s: optax.tree_utils.tree_get(s, "trace"), 0.5, **form)
    own = sparse_momentum(0.1, 0.5, nesterov=False, weight_decay=0.2, **form)
    for one, other in zip(run(wrapped)[0], run(own)[0], strict=True):
        for key in one:
            np.testing.assert_allclose(one[key], other[key], rtol=1e-5, atol=1e-6)
    _, state = run(wrapped, 1)
    assert state.mask["w"].dtype == jnp.int8
    assert gradchain.describe(wrapped, PARAMS)["mask"].state_bytes == 48 + 20


@pytest.mark.parametrize("end", [0.0, 0.5])
def test_masks_rest_where_the_rate_of_pruning_ends_at_zero(end):
    form = {"update_interval": 2, "prune_decay_steps": 4, "redistribution": "none"}
    found, _ = run(sparse_momentum(0.1, 0.5, prune_rate_end=end, **form), 12)
    early, late = found[6]["w"] != 0, found[-1]["w"] != 0
    assert np.any(early != late) == (end > 0)


GROUPS = [{"w": 0, "b": 0}, {"u": 0}]


def test_how_far_a_step_must_leave_the_half_space():
    """Of rows of length 1 that go to 0.3 and to -0.1 times themselves."""
    x = {"w": jnp.eye(2)}
    g = {"w": jnp.diag(jnp.array([0.7, 1.1]))}
    for epsilon, rows in ((0.0, [0.3, 0.0]), (0.29, [0.3, 0.0]), (0.31, [0.0, 0.0])):
        opt = hspg(1.0, [{"w": 0}], 0.0, epsilon=epsilon, projection_start=1)
        moved = x["w"] + opt.update(g, opt.init(x), x)[0]["w"]
        np.testing.assert_allclose(jnp.diag(moved), rows, atol=1e-6)


@pytest.mark.parametrize("periods", [1, 3])
def test_hesso_reaches_its_sparsity_exactly(periods):
    """In equal parts, with the bias of a structure, and one structure of each set stays."""
    opt = hesso(0.05, GROUPS, 0.5, pruning_steps=12, start_pruning_step=2, pruning_periods=periods)
    found, _ = run(opt, 20)
    counts = [zero_rows(p["w"]) + zero_rows(p["u"]) for p in found]
    each = 6 // periods
    ends = [2 + 12 // periods * (j + 1) for j in range(periods)]
    assert [counts[t - 2] for t in ends] == [each * (j + 1) for j in range(periods)]
    assert np.array_equal(found[-1]["b"] == 0, np.all(found[-1]["w"] == 0, axis=1))
    everything, _ = run(hesso(0.05, GROUPS, 0.999, pruning_steps=4), 8)
    assert (zero_rows(everything[-1]["w"]), zero_rows(everything[-1]["u"])) == (7, 4)


def test_hesso_keeps_multiples():
    found, _ = run(hesso(0.05, GROUPS, 0.5, pruning_steps=4, group_divisible=4), 8)
    assert (8 - zero_rows(found[-1]["w"])) % 4 == 0
    assert zero_rows(found[-1]["u"]) <= 1
    small, _ = run(hesso(0.05, GROUPS, 0.5, pruning_steps=4, group_divisible=5), 8)
    assert zero_rows(small[-1]["u"]) == 0


def test_structures_fade_from_any_optimizer():
    opt = structured_pruning(optax.adam(0.01), GROUPS, 0.5, pruning_steps=4)
    found, _ = run(opt, 8)
    assert zero_rows(found[-1]["w"]) + zero_rows(found[-1]["u"]) == 6


def test_cric_reaches_its_sparsity_exactly():
    opt = hesso_cric(0.02, GROUPS, 0.5, sampling_steps=2, hybrid_steps=3, max_cycles=2)
    found, state = run(opt, 24, value=jnp.float32(2.0))
    assert zero_rows(found[-1]["w"]) + zero_rows(found[-1]["u"]) == 6
    assert int(optax.tree.get(state, "ended_at")) == 15
    # the trials leave no trace: what is remembered is what training continues from
    assert all(np.array_equal(found[1][k], PARAMS[k]) for k in PARAMS)


def test_cric_ends_when_few_structures_are_new():
    """Six are new in its first cycle, which follows twelve trials."""
    settings = {"sampling_steps": 2, "hybrid_steps": 3, "max_cycles": 2}
    for tolerance, last in ((5, 0), (6, 13)):
        opt = hesso_cric(0.02, GROUPS, 0.5, tolerance=tolerance, **settings)
        _, state = run(opt, 14, value=jnp.float32(2.0))
        assert int(optax.tree.get(state, "ended_at")) == last


def test_bad_input_is_refused_by_name():
    form = {"update_interval": 2, "prune_decay_steps": 20}
    for density in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match="density"):
            sparse_momentum(0.1, density, **form)
        with pytest.raises(ValueError, match="density"):
            global_sparse_momentum(0.1, density)
    for sparsity in (1.0, -0.1):
        with pytest.raises(ValueError, match="sparsity"):
            magnitude_pruning(optax.sgd(0.1), sparsity)
    for target in (-0.1, 1.0):
        with pytest.raises(ValueError, match="target_sparsity"):
            hesso(0.1, GROUPS, target, pruning_steps=4)
        with pytest.raises(ValueError, match="target_sparsity"):
            hesso_cric(0.1, GROUPS, target, sampling_steps=2, hybrid_steps=2)
    with pytest.raises(ValueError, match="pruning_steps=4"):
        hesso(0.1, GROUPS, pruning_steps=4, pruning_periods=3)
    with pytest.raises(ValueError, match="criteria"):
        hesso(0.1, GROUPS, pruning_steps=4, criteria={"size": 1.0})
    with pytest.raises(ValueError, match="'v'"):
        hesso(0.1, [{"v": 0}], pruning_steps=4).init(PARAMS)

"""Many training runs in one program: what is found, how often it compiles, what is refused."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import sweep
from gradchain.optimizers import adamw, mezo, momo, sam
from matplotlib.image import imread

RATES, DECAYS, SEEDS = [1e-3, 1e-2, 1e-1, 1e6], [0.0, 0.5], [3, 4, 5]


def start(key):
    return {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}


def batch(key, step):
    return jax.random.normal(jax.random.fold_in(key, step), (8, 3))


def loss(params, x):
    return jnp.mean((x @ params["w"] + params["b"] - x.sum(-1) - 1.0) ** 2)


def alone(rate, decay, seed, steps):
    """One of the runs by itself."""
    first, second = jax.random.split(jax.random.key(seed))
    params, opt = start(first), optax.adamw(rate, weight_decay=decay)
    state, seen = opt.init(params), []
    for t in range(steps):
        value, grads = jax.value_and_grad(loss)(params, batch(second, t))
        updates, state = opt.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(value)
    return params, np.array(seen)


def test_all_runs_are_those_that_are_run_alone(tmp_path):
    """Whatever shares the device; the valley is drawn, the best is found, a divergence is seen."""
    builds, shown = [], []

    def build(rate, decay):
        builds.append(rate)
        return adamw(rate, weight_decay=decay)

    def truth(params):
        return jnp.sum((params["w"] - 1) ** 2)

    settings = {"rate": RATES, "decay": DECAYS}
    form = {"steps": 15, "seeds": SEEDS, "evaluate": truth}
    found = sweep(build, settings, start, loss, batch, **form, progress=lambda *n: shown.append(n))
    traced = len(builds)
    assert shown[-1] == (15, 15)
    assert found.train.shape == (4, 2, 3, 15)
    for i, j, k in ((0, 0, 0), (2, 1, 2)):
        params, seen = alone(RATES[i], DECAYS[j], SEEDS[k], 15)
        np.testing.assert_allclose(found.train[i, j, k], seen, rtol=1e-4)
        np.testing.assert_allclose(found.final[i, j, k], truth(params), rtol=1e-4)
    parts = sweep(build, settings, start, loss, batch, **form, at_once=7, progress=False)
    assert len(builds) == 2 * traced < 12  # whatever the number of runs and of chunks
    np.testing.assert_allclose(parts.train, found.train, rtol=1e-5)
    i, j = np.unravel_index(np.argmin(found.final.mean(-1)[:3]), (3, 2))  # the last rate diverges
    assert found.best == {"rate": RATES[i], "decay": DECAYS[j]}
    assert str(found).count("<") == 1
    assert len(str(found).splitlines()) == 9
    found.plot(tmp_path / "valley.png")
    assert imread(tmp_path / "valley.png").shape[1] > 300
    assert found.plot(along="decay").axes[0].get_xscale() == "linear"
    with pytest.raises(ValueError, match="along='lr'"):
        found.plot(along="lr")


def test_what_diverged_is_never_the_best():
    form = {"steps": 40, "progress": False}
    found = sweep(lambda r: optax.sgd(r), {"r": [1e30, 0.1]}, start, loss, batch, **form)
    assert found.best == {"r": 0.1}
    assert "inf" in str(found)


@pytest.mark.parametrize("build", [momo, mezo, lambda learning_rate: sam(optax.sgd(learning_rate))])
def test_methods_get_the_loss_they_ask_for(build):
    form = {"steps": 30, "progress": False}
    found = sweep(build, {"learning_rate": [1e-3, 3e-2]}, start, loss, batch, **form)
    assert found.train[1, 0, -5:].mean() < found.train[1, 0, :5].mean()


def test_bad_input_is_refused_by_name():
    settings = {"learning_rate": [0.1]}
    for form, message in (({"steps": 0}, "steps=0"), ({"steps": 1, "at_once": 0}, "at_once=0")):
        with pytest.raises(ValueError, match=message):
            sweep(adamw, settings, start, loss, batch, **form)
    for empty in ({}, {"learning_rate": []}):
        with pytest.raises(ValueError, match="at least one"):
            sweep(adamw, empty, start, loss, batch, steps=1)
    with pytest.raises(ValueError, match="the method needs"):
        sweep(gradchain.optimizers.sophia_g, settings, start, loss, batch, steps=1, progress=False)

"""`observe(method, "learning_rate")` is the rate of the step, wherever it comes from."""

import inspect

import gradchain
import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain import chain, inject_hyperparams, observe, observed
from gradchain.catalogue import METHODS
from gradchain.optimizers import adamw, lion, lookahead, sgd
from gradchain.transforms import FlowError
from samples import sample
from shared import divisible_tree
from subjects import NAMES

WITH_RATE = [
    n for n in NAMES if "learning_rate" in inspect.signature(METHODS[n].factory).parameters
]
LINE = optax.linear_schedule(0.1, 0.0, 10)
NUMBERS_ONLY = ("adam_hd", "ranger21", "sgd_hd")


@pytest.mark.parametrize("name", WITH_RATE)
def test_every_method_with_a_rate_shows_it(name):
    """Behind a clip in a wrapper, where the parts of a chained method may each have a rate."""
    rate = METHODS[name].learning_rate or 0.01
    method = sample(name, rate if name in NUMBERS_ONLY else LINE)
    opt = observe(lookahead(chain(optax.clip(1.0), method)), "learning_rate")
    state = jax.eval_shape(opt.init, divisible_tree())
    assert {key: (x.shape, x.dtype) for key, x in observed(state).items()} == {
        "learning_rate": ((), jnp.float32)
    }


@pytest.mark.parametrize(
    "opt",
    [
        adamw(LINE),
        chain(optax.clip(1.0), adamw(LINE)),
        chain(sgd(LINE), adamw(LINE)),
        lookahead(adamw(LINE)),
        lookahead(chain(optax.clip(1.0), lion(LINE))),
        inject_hyperparams(adamw)(learning_rate=LINE),
        optax.inject_hyperparams(adamw)(learning_rate=LINE),
        chain(optax.clip(1.0), inject_hyperparams(adamw)(learning_rate=LINE)),
        optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adam)(learning_rate=LINE)),
        optax.chain(optax.clip(1.0), optax.chain(adamw(LINE), optax.clip(1.0))),
    ],
    ids=lambda opt: str(opt)[:30],
)
def test_the_rate_of_the_third_step(opt):
    watched, params = observe(opt, "learning_rate"), {"w": jnp.ones((2,))}
    state, plain_state = watched.init(params), opt.init(params)
    for _ in range(3):
        updates, state = watched.update(params, state, params)
        expected, plain_state = opt.update(params, plain_state, params)
    assert float(observed(state)["learning_rate"]) == pytest.approx(float(LINE(2)))
    assert updates["w"].tolist() == expected["w"].tolist()


def test_other_numbers_and_what_there_is_none_of():
    params = {"w": jnp.ones((2,))}
    opt = observe(inject_hyperparams(adamw)(learning_rate=0.5, b1=0.75), "learning_rate", "b1")
    _, state = opt.update(params, opt.init(params), params)
    assert {k: float(x) for k, x in observed(state).items()} == {"learning_rate": 0.5, "b1": 0.75}
    with pytest.raises(FlowError, match="several"):
        observe(chain(sgd(0.1), sgd(0.2)), "learning_rate")
    with pytest.raises(FlowError, match="'rate'"):
        observe(adamw(0.1), "rate")
    with pytest.raises(FlowError, match="'rate'"):
        gradchain.observe(inject_hyperparams(adamw)(learning_rate=0.5), "rate").init(params)

"""A method is a plain value: two functions in a named tuple, which anybody may rebuild or keep."""

import copy

import cloudpickle
import gradchain
import jax
from samples import sample
from subjects import NAMES, small_tree, step_of
from turns import in_turn

REBUILDS = {
    "tree_map": lambda opt: jax.tree.map(lambda part: part, opt),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda opt: opt._replace(init=opt.init),
    "cloudpickle": lambda opt: cloudpickle.loads(cloudpickle.dumps(opt)),
}


@in_turn(NAMES, 0, of=4)
def test_a_rebuilt_method_is_the_method(name):
    """It still is a flow, of the same inside, and takes the same step on the same state."""
    opt = sample(name)
    params = small_tree()
    state = jax.eval_shape(opt.init, params)
    step = str(jax.make_jaxpr(step_of(opt))(params, state))
    for how, rebuild in REBUILDS.items():
        again = rebuild(opt)
        assert type(again) is type(opt), how
        assert repr(again) == repr(opt), how
        assert gradchain.needs(again) == gradchain.needs(opt), how
        assert jax.eval_shape(again.init, params) == state, how
        if again.update != opt.update:
            assert str(gradchain.draw(again)) == str(gradchain.draw(opt)), how
            assert str(gradchain.describe(again, params)) == str(gradchain.describe(opt, params))
            assert str(jax.make_jaxpr(step_of(again))(params, state)) == step, how

"""A flow is its two functions: rebuilt from them it is the same flow, with others it is foreign."""

import dataclasses
import pickle

import gradchain
import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain import observe
from gradchain.optimizers import adam
from gradchain.transforms import (
    FlowError,
    chain,
    ema,
    flow,
    named,
    scale_by_adam,
)

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def stepped(opt, params=PARAMS):
    state = opt.init(params)
    updates, state = opt.update(params, state, params)
    return updates, opt.update(updates, state, params)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(map(jnp.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def halved(g):
    return 0.5 * g


@pytest.mark.parametrize(
    "made",
    [
        adam(1e-3),
        flow(halved),
        chain(ema(0.9), gradchain.transforms.scale_by_learning_rate(0.1)),
        named("mine", adam(1e-3)),
        observe(named("mine", adam(1e-3)), "mu"),
    ],
    ids=["factory", "flow", "chain", "named", "observed"],
)
def test_plain_pickle(made):
    """By the call that made it, so that no function of ours has to be pickled."""
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert repr(again) == repr(made)
    assert again.program.state_name == made.program.state_name
    assert_same(stepped(again), stepped(made))


def test_a_bare_tuple_of_its_functions_is_known_as_the_flow():
    opt = adam(1e-3)
    bare = optax.GradientTransformationExtraArgs(opt.init, opt.update)
    assert str(gradchain.draw(bare)) == str(gradchain.draw(opt))
    assert str(gradchain.describe(bare, PARAMS)) == str(gradchain.describe(opt, PARAMS))
    inside = [jax.eval_shape(chain(ema(0.5), part).init, PARAMS) for part in (opt, bare)]
    assert inside[0] == inside[1]


def test_other_functions_make_it_foreign():
    """It runs, alone and in a chain; its inside is not known any more, and messages say so."""
    opt = scale_by_adam()
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return opt.update(*args, **kwargs)

    wrapped = opt._replace(update=counted)
    assert_same(stepped(wrapped), stepped(opt))
    assert_same(stepped(chain(wrapped))[0], stepped(opt)[0])
    assert len(calls) == 4
    assert gradchain.needs(wrapped) == ()
    assert "counted" in repr(wrapped)
    inside = [row.label for row in gradchain.describe(wrapped, PARAMS).rows]
    assert len(inside) == 1
    assert "mu" not in str(gradchain.draw(wrapped, depth=None))
    with pytest.raises(FlowError, match="replaced"):
        _ = wrapped.graph


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass
class Trainer:
    """A module in the style of Equinox: whatever it holds is a leaf, arrays or not."""

    params: dict
    opt: optax.GradientTransformation

    def tree_flatten(self):
        return (self.params, self.opt), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def parted(tree):
    """The arrays, and everything else, each with None in place of the other."""
    arrays = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else None, tree)
    others = jax.tree.map(lambda x: None if isinstance(x, jax.Array) else x, tree)
    return arrays, others


def joined(arrays, others):
    return jax.tree.map(
        lambda a, b: b if a is None else a, arrays, others, is_leaf=lambda x: x is None
    )


def test_a_field_of_a_module_whose_leaves_are_filtered():
    @jax.jit
    def step(arrays, state):
        trainer = joined(arrays, others)
        updates, state = trainer.opt.update(trainer.params, state, trainer.params)
        params = optax.apply_updates(trainer.params, updates)
        return parted(dataclasses.replace(trainer, params=params))[0], state

    trainer = Trainer(PARAMS, adam(0.1))
    arrays, others = parted(trainer)
    new, state = step(arrays, trainer.opt.init(trainer.params))
    updates, _ = trainer.opt.update(PARAMS, trainer.opt.init(PARAMS), PARAMS)
    assert joined(new, others).opt == trainer.opt
    assert jnp.allclose(new.params["w"], PARAMS["w"] + updates["w"])
    step(new, state)
    assert step._cache_size() == 1


def test_an_argument_whose_functions_are_static():
    """Passed to `jit` flattened, functions as static leaves: a copy does not compile anew."""

    def run(flat, static, treedef):
        opt, params = jax.tree.unflatten(
            treedef, [s if a is None else a for a, s in zip(flat, static, strict=True)]
        )
        return opt.update(params, opt.init(params), params)[0]

    compiled = jax.jit(run, static_argnums=(1, 2))
    opt = adam(0.1)
    for given in (opt, jax.tree.map(lambda x: x, opt)):
        leaves, treedef = jax.tree.flatten((given, PARAMS))
        arrays = [x if isinstance(x, jax.Array) else None for x in leaves]
        static = tuple(None if isinstance(x, jax.Array) else x for x in leaves)
        assert_same(compiled(arrays, static, treedef), stepped(opt)[0])
    assert compiled._cache_size() == 1

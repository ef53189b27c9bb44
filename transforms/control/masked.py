"""Transformations for some of the leaves, and for groups of leaves."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

import jax
import optax

from ..notation.build import Flow, flow
from ..notation.checks import checked, refusal, transformation
from ..notation.compose import as_flow, named
from ..notation.foreign import owner_of, update_with_extra
from ..notation.hyperparameters import Mask
from ..notation.parts import merge, split, split_by_label
from ..notation.signal import Signal
from ..notation.values import is_missing

Labels: TypeAlias = optax.Params | Hashable | Callable[[Any], optax.Params]
"""A tree of labels, which may be a prefix of the params, or a function from the params to one."""


@transformation()
def masked(
    inner: optax.GradientTransformation,
    mask: Mask | None = True,
    *,
    mask_compatible_extra_args: bool = False,
) -> Flow:
    """Sends the selected leaves through a transformation and leaves the others as they are.

    A transformation to send signals through.

    As `optax.masked`, as part of the flow: the state has no trace of the others, reductions run
    over the selected leaves, and closures (`value_fn`) and layer data see the whole tree.

    Args:
      inner: any transformation.
      mask: a boolean, a tree of booleans (or a prefix), or a function from the params to one.
      mask_compatible_extra_args: as in Optax, for its own transformations: extra inputs shaped like
        the params reach `inner` with the selected leaves alone. Flows take them in any case.
    """
    if mask is None or mask is True:
        return flow(lambda g: g >> inner)

    program = as_flow(_taking_parts(inner, mask_compatible_extra_args)).own_program

    def step(g: Signal) -> Signal:
        chosen, others = split(g, mask)
        return merge(program.receive(chosen, narrow=lambda tree: split(tree, mask)[0]), others)

    return flow(step)


@checked()
def partition(
    transforms: Mapping[Any, optax.GradientTransformation],
    param_labels: Labels,
    *,
    mask_compatible_extra_args: bool = False,
) -> Flow:
    """Sends each group of leaves through a transformation of its own: parameter groups.

    A transformation to send signals through.

    As `optax.partition`, as part of the flow: each state has the leaves of its group alone, and
    reductions (norms, the estimates of Prodigy) run over the group. Closures (`value_fn`) and
    layer data see the whole tree, so a method that evaluates the loss works in a group.

    Args:
      transforms: label -> transformation.
      param_labels: a tree of labels shaped like the params, or a prefix of it, or a function from
        the params to one.
      mask_compatible_extra_args: see `masked`.

    Returns:
      The transformation; its state has a field for each label, as far as that is an identifier.

    Raises:
      FlowError: for a leaf without a label or with one that `transforms` does not have: in `init`,
        or in `update` where no group has a state.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradchain import partition
      >>> from gradchain.optimizers import sgd, sign_of_gradient
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> labels = {"kernel": "slow", "bias": "fast"}
      >>> opt = partition({"slow": sgd(0.1), "fast": sgd(1.0)}, labels)
      >>> updates, _ = opt.update(params, opt.init(params), params)
      >>> float(updates["kernel"][0, 0]), float(updates["bias"][0])
      (-0.10000000149011612, -1.0)
    """
    if not _may_be_labels(param_labels, transforms):
        raise refusal(
            f"param_labels={param_labels!r} must be a tree of labels, each one of "
            f"{', '.join(map(repr, transforms))}, or a function of the params"
        )
    groups = {
        label: named(_field(label, number), _taking_parts(group, mask_compatible_extra_args))
        for number, (label, group) in enumerate(transforms.items())
    }

    def parted(tree: Signal) -> dict[Hashable, Signal]:
        return dict(zip(groups, split_by_label(tree, param_labels, tuple(groups)), strict=True))

    def own_part(label: Hashable) -> Callable[[Signal], Signal]:
        return lambda tree: parted(tree)[label]

    def step(g: Signal) -> Signal:
        parts = parted(g)
        return merge(
            *(
                group.own_program.receive(parts[label], narrow=own_part(label))
                for label, group in groups.items()
            )
        )

    return flow(step)


def _may_be_labels(labels: object, known: Mapping[Any, Any]) -> bool:
    """Whether a single label is one of a group; of trees and functions `init` says it."""
    if not jax.tree_util.all_leaves([labels]):
        return labels is not None
    return callable(labels) or (isinstance(labels, Hashable) and labels in known)


def _taking_parts(
    inner: optax.GradientTransformation, mask_extra: bool
) -> optax.GradientTransformation:
    """A foreign transformation that is handed the parts of trees that its updates have."""
    if owner_of(inner) is not None or not mask_extra:
        return inner
    update = update_with_extra(inner)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        parts = {name: _part_of(value, updates) for name, value in extra.items()}
        return update(updates, state, params, **parts)

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _part_of(value: Any, updates: Any) -> Any:
    structure: jax.tree_util.PyTreeDef
    leaves, structure = jax.tree.flatten(updates, is_leaf=is_missing)
    try:
        values = structure.flatten_up_to(value)
    except (ValueError, TypeError, KeyError):
        return value
    pairs = zip(leaves, values, strict=True)
    return structure.unflatten([x if is_missing(x) else part for x, part in pairs])


def _field(label: Hashable, number: int) -> str:
    """The name of the group's state."""
    name = str(label)
    return name if name.isidentifier() and not name.startswith("_") else f"group_{number}"

"""Maximal-update scales for second-order methods: rates and damping that transfer across widths."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import optax

from ....registry import factory_of, method
from ....transforms import Flow, FlowError, Signal, Size, chain, checked, flow, transformation
from ....transforms.kronecker import spread
from ....transforms.step_size import leaf_multipliers

Role = Literal["input", "hidden", "output"]
Method = Literal["sgd", "adam", "kfac", "shampoo", "foof"]
ROLES: tuple[Role, ...] = get_args(Role)

FACTORIES = {"sgd": "sgd", "adam": "adam", "kfac": "k_fac", "shampoo": "shampoo"}
"""The optimizer of the catalogue that a row stands for; FOOF has none."""

RATE_EXPONENTS: dict[Method, tuple[float, float, float]] = {
    "sgd": (-1.0, 0.0, 1.0),
    "adam": (0.0, 1.0, 1.0),
    "kfac": (0.0, 0.0, 0.0),
    "shampoo": (-0.5, 0.0, 0.5),
    "foof": (-1.0, -1.0, 0.0),
}
"""Exponent c of each role: its learning rate is the base rate times width_ratio^(-c)."""

STD_EXPONENTS = (0.0, 0.5, 1.0)
DAMPING_A_EXPONENTS = (0.0, 1.0, 1.0)
DAMPING_B_EXPONENTS = (-1.0, -1.0, 0.0)


Roles: TypeAlias = Role | Mapping[str, "Roles"] | Sequence["Roles"] | None
"""The role of each leaf: a tree that may be cut off above the leaves."""


@checked()
def mup_second_order_scales(
    method: Method, base_width: Size, width: Size, roles: Sequence[Role] = ROLES
) -> dict[Role, dict[str, float]]:
    r"""What to multiply rates, initial weights and damping by when a model gets wider.

    With r = width / base_width, for the roles input (fan-in fixed), hidden, and output (fan-out
    fixed):

        learning_rate_mult   r^(-c): c = (-1, 0, 1) for sgd, (0, 1, 1) adam, (0, 0, 0) kfac,
                             (-1/2, 0, 1/2) shampoo, (-1, -1, 0) foof
        init_std_mult        1, r^(-1/2), r^(-1)
        damping_a_mult       1, r, r            (kfac and foof: of the input factor)
        damping_b_mult       1/r, 1/r, 1        (kfac: of the cotangent factor)

    Damping multipliers are 1 for methods without the factor. Shampoo's ridge is taken relative to
    the largest eigenvalue, which scales by itself.

    Args:
      method: "sgd", "adam", "kfac", "shampoo" or "foof".
      base_width: width at which rate and damping were tuned.
      width: width of the model.
      roles: which roles to give.

    Returns:
      role -> the four multipliers by name.

    Raises:
      ValueError: for an unknown method or role, or a width that is not positive.

    Example:
      >>> from gradchain.optimizers import mup_second_order_scales
      >>> mup_second_order_scales("kfac", 64, 128)["hidden"]["damping_a_mult"]
      2.0

    References:
      Ishikawa & Karakida 2023, On the Parameterization of Second-Order Optimization Effective
      Towards the Infinite Width. Ratios to a base width, and the row of FOOF, are those of the
      authors' code (riverstone496/classmup).
    """
    ratio = width / base_width
    scales = {}
    for role in roles:
        _check_role("mup_second_order_scales", role)
        i = ROLES.index(role)
        a, b = DAMPING_A_EXPONENTS[i], DAMPING_B_EXPONENTS[i]
        scales[role] = {
            "learning_rate_mult": ratio ** -RATE_EXPONENTS[method][i],
            "init_std_mult": ratio ** -STD_EXPONENTS[i],
            "damping_a_mult": ratio**a if method in ("kfac", "foof") else 1.0,
            "damping_b_mult": ratio**b if method == "kfac" else 1.0,
        }
    return scales


@checked()
def with_mup_scales(
    factory: Callable[..., optax.GradientTransformation],
    roles: Roles,
    method: Method,
    base_width: Size,
    width: Size,
) -> Callable[..., Flow]:
    """A factory whose rates, and damping where it has any, are scaled layer by layer.

    Momentum and weight decay are not rescaled; a bias goes with its layer.

    Args:
      factory: `k_fac`, `shampoo`, `adam`, ...: learning rate first.
      roles: tree of "input", "hidden", "output", shaped like the params or cut off above the
        leaves (`{"embed": "input", "blocks": "hidden", "head": "output"}`), or one role for all.
        Leaves without a role keep the rate; every layer of `k_fac` needs one.
      method: which row of `mup_second_order_scales`.
      base_width: see there.
      width: see there.

    Returns:
      A factory with the same arguments.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import with_mup_scales
      >>> factory = with_mup_scales(optax.sgd, {"head": "output"}, "sgd", 64, 128)
      >>> opt = factory(1.0)
      >>> params = {"head": jnp.ones((2, 2))}
      >>> float(opt.update(params, opt.init(params), params)[0]["head"][0, 0])
      -0.5
    """
    scales = mup_second_order_scales(method, base_width, width)
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def scaled(*args: Any, **kwargs: Any) -> Flow:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for side in ("a", "b"):
            name = f"damping_{side}"
            if method in ("kfac", "foof") and name in signature.parameters:
                base = bound.arguments[name]
                base = bound.arguments.get("damping") if base is None else base
                bound.arguments[name] = _by_role(roles, scales, f"{name}_mult", base)
        rates = _by_role(roles, scales, "learning_rate_mult", 1.0)
        return chain(factory(*bound.args, **bound.kwargs), scale_leaves(rates))

    return scaled


@method(
    "Ishikawa & Karakida 2023, On the Parameterization of Second-Order Optimization Effective "
    "Towards the Infinite Width",
    arxiv="2312.12226",
    tags=("curvature", "width-transfer", "kronecker"),
    learning_rate=1e-2,
    required={"roles": "hidden", "base_width": 64, "width": 128},
)
@transformation()
def mup_second_order(
    learning_rate: optax.ScalarOrSchedule,
    roles: Roles,
    base_width: Size,
    width: Size,
    method: Method = "kfac",
    inner: str | Callable[..., optax.GradientTransformation] | None = None,
    inner_kwargs: Mapping[str, Any] | None = None,
) -> Flow:
    """K-FAC, or another optimizer, whose rate and damping transfer from a narrower model.

    The multipliers are those of `mup_second_order_scales`, layer by layer.

    Args:
      learning_rate: number or schedule, tuned at `base_width`.
      roles: see `with_mup_scales`.
      base_width: width at which rate and damping were tuned.
      width: width of the model.
      method: which row of `mup_second_order_scales`: "kfac", "shampoo", "sgd", "adam" or "foof".
      inner: the optimizer, by its name in the catalogue or as `(learning_rate, **inner_kwargs) ->
        transformation`; default that of the row, "foof" has none.
      inner_kwargs: further arguments of `inner`.

    Raises:
      ValueError: for an unknown method or role, a width below 1, or "foof" without an `inner`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mup_second_order
      >>> opt = mup_second_order(1.0, {"head": "output"}, 64, 128, "sgd")
      >>> params = {"head": jnp.ones((2, 2))}
      >>> float(opt.update(params, opt.init(params), params)[0]["head"][0, 0])
      -0.5

    References:
      Ishikawa & Karakida 2023 (arXiv 2312.12226), see `mup_second_order_scales`. Start the weights
      with a standard deviation times `init_std_mult`.
    """
    inner = inner or FACTORIES.get(method)
    if inner is None:
        raise FlowError(f"mup_second_order: inner must be given for method={method!r}, got None")
    factory = factory_of("inner", inner)
    scaled = with_mup_scales(factory, roles, method, base_width, width)
    return scaled(learning_rate, **(inner_kwargs or {}))


@transformation()
def scale_leaves(multipliers: optax.Params) -> Flow:
    """Multiplies every leaf by its number in a tree that may be cut off above the leaves; else 1.

    Args:
      multipliers: tree of numbers.
    """

    def step(u: Signal) -> Signal:
        return u * leaf_multipliers(u, spread(multipliers, 1.0))

    return flow(step)


def _by_role(roles: Any, scales: Mapping[Role, Mapping[str, float]], name: str, base: Any) -> Any:
    if isinstance(roles, Mapping):
        return {key: _by_role(role, scales, name, base) for key, role in roles.items()}
    if isinstance(roles, list | tuple):
        return [_by_role(role, scales, name, base) for role in roles]
    if roles is None:
        return None
    _check_role("with_mup_scales", roles)
    return scales[roles][name] * base


def _check_role(label: str, role: object) -> None:
    if role not in ROLES:
        allowed = ", ".join(map(repr, ROLES))
        raise FlowError(f"{label}: roles={role!r} is not one of {allowed}")

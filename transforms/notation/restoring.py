"""States from checkpoints of other compositions: what has the same name goes on."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from .checks import checked
from .errors import FlowError
from .layout import COUNT
from .paths import named_leaves
from .sharding import resharded

Path: TypeAlias = tuple[str, ...]
Arrays: TypeAlias = Mapping[Path, Any]

SHOWN = 6
"""So many names stand in a message."""


@checked()
def restore_by_name(
    saved: optax.OptState,
    state: optax.OptState,
    *,
    added: Sequence[str] = (),
    removed: Sequence[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> optax.OptState:
    """The state of a composition that gained or lost parts since its checkpoint was written.

    A function of a state and the first one of another composition.

    What stands under the same names goes on. A method that was wrapped since then, or is no longer,
    is found below the wrapper's name. What the composition has gained starts as in `state`, and
    what it has lost is left out; both are named, so that nothing else is.

    Args:
      saved: a state, or what a checkpoint gives without a target: its names count, not its
        containers.
      state: the first state of the composition as it is now, `opt.init(params)`.
      added: names of what it has gained ("ema", "scale_by_adam.nu"); what is below them, too.
      removed: names of what the checkpoint has and the composition has lost.
      renamed: what has another name now, by its name in the checkpoint, as the only state of a
        method that is wrapped, which is called like the method there.

    Returns:
      A state like `state`, in its dtypes and on its devices; it shares arrays with what was given.

    Raises:
      FlowError: for a checkpoint of another method, or of other shapes; it says what differs.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import chain, restore_by_name
      >>> from gradchain.optimizers import sgd
      >>> from gradchain.transforms import ema
      >>> params = jnp.ones(2)
      >>> opt = sgd(1e-3, momentum=0.9)
      >>> saved = opt.update(params, opt.init(params), params)[1]
      >>> smoothed = chain(ema(0.5, name="smooth"), opt)
      >>> state = restore_by_name(saved, smoothed.init(params), added=["smooth"])
      >>> state.scale_by_sgd.trace.tolist()
      [1.0, 1.0]
    """
    for argument, given in (("saved", saved), ("state", state)):
        odd = [x for x in jax.tree.leaves(given) if not _is_array(x)]
        if odd:
            problem = f"{argument} has the leaf {odd[0]!r}, which is no array"
            raise FlowError(f"restore_by_name: {problem}")
    moves = {_path(name): _path(to) for name, to in renamed.items()}
    old = {_moved(path, moves): leaf for path, leaf in _arrays(saved).items()}
    new = _arrays(state)
    pairs = _pairs(old, new)
    if not pairs.keys() - {(COUNT,)} and new.keys() - {(COUNT,)} and old:
        raise FlowError(
            "restore_by_name: the checkpoint is another method's: it has "
            f"{_listed(old, ())}; the state has {_listed(new, ())}"
        )
    _refuse(new.keys() - pairs.keys(), new, added, "added", "the state has {}, the checkpoint not")
    gone = old.keys() - set(pairs.values())
    _refuse(gone, old, removed, "removed", "the checkpoint has {}, the state not")
    values = [_like(old[pairs[p]], x, p) if p in pairs else x for p, x in new.items()]
    return jax.tree.unflatten(jax.tree.structure(state), values)


def _is_array(leaf: object) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, get_args(ArrayLike))


def _arrays(state: optax.OptState) -> dict[Path, Any]:
    return {
        path[:-1] if path[-1:] == ("value",) else path: leaf  # a Flax variable, written out
        for path, leaf in named_leaves(state).items()
    }


def _path(name: str) -> Path:
    return tuple(name.split("."))


def _moved(path: Path, moves: Mapping[Path, Path]) -> Path:
    """The path under the new name of what it is below."""
    found = next((name for name in moves if path[: len(name)] == name), ())
    return (*moves[found], *path[len(found) :]) if found else path


def _pairs(old: Arrays, new: Arrays) -> dict[Path, Path]:
    """The new paths with the old ones that they are to take from, as many as there are.

    FlowError where there are as many in several ways.
    """
    ways = _ways(old, new) + [{p: q for q, p in way.items()} for way in _ways(new, old)]
    best = max(map(len, ways))
    # What stands under its very name comes first.
    first, *others = (way for way in ways if len(way) == best)
    if first is not ways[0] and any(way != first for way in others):
        other = next(way for way in others if way != first)
        places = " or ".join(_listed(way, ()) for way in (first, other))
        raise FlowError(f"restore_by_name: what the checkpoint has may go on as {places}")
    return first


def _ways(short: Arrays, long: Arrays) -> list[dict[Path, Path]]:
    """Paths of `long` with those of `short` that stand there, at first without a prefix."""
    return [_below(short, long, prefix) for prefix in _prefixes(short, long)]


def _below(short: Arrays, long: Arrays, prefix: Path) -> dict[Path, Path]:
    """The paths below the prefix; the count of steps may be that of the whole."""
    found = {(*prefix, *path): path for path in short if (*prefix, *path) in long}
    count = (COUNT,)
    if count in short and count in long and (*prefix, COUNT) not in long:
        found[count] = count
    return found


def _prefixes(short: Iterable[Path], long: Arrays) -> list[Path]:
    """Those in `long` below which a name stands with which paths of `short` begin; none first."""
    every = {path[:length]: None for path in long for length in range(len(path) + 1)}
    first = {path[:1] for path in short} - {(COUNT,)}
    return [(), *(p for p in every if p and any((*p, *name) in every for name in first))]


def _refuse(
    paths: Iterable[Path], among: Arrays, named: Sequence[str], argument: str, message: str
) -> None:
    """Raises FlowError for paths that are not below one of the names."""
    allowed = [*map(_path, named)]
    left = [path for path in paths if not any(path[: len(a)] == a for a in allowed)]
    if left:
        names = _listed(left, [path for path in among if path not in left])
        raise FlowError(
            f"restore_by_name: {message.format(names)}; where that is meant, "
            f"say which of them in {argument}=[...], or what is called otherwise in renamed={{...}}"
        )


def _listed(paths: Iterable[Path], others: Iterable[Path]) -> str:
    """The shortest names that say which paths are meant and none of the others."""
    taken = {path[:length] for path in others for length in range(len(path))}
    names: dict[str, None] = {}
    for path in sorted(paths):
        length = next((n for n in range(1, len(path)) if path[:n] not in taken), len(path))
        names[".".join(path[:length])] = None
    shown = ", ".join(list(names)[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "") or "nothing"


def _like(value: Any, like: jax.Array, path: Path) -> jax.Array:
    """An array of the checkpoint in the dtype of the one that it replaces, where that one lies."""
    is_shape = jnp.shape(value) == jnp.shape(like)
    kinds = [jnp.issubdtype(jnp.result_type(x), jnp.integer) for x in (value, like)]
    if not is_shape or kinds[0] != kinds[1]:
        has, wanted = (f"{jnp.result_type(x)}{jnp.shape(x)}" for x in (value, like))
        raise FlowError(f"restore_by_name: {'.'.join(path)} is {wanted}, in the checkpoint {has}")
    return resharded(jnp.asarray(value, like.dtype), like)

"""How the states of a flow's nodes are arranged: named tuples that mirror the scopes."""

from collections import namedtuple
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import optax

from .errors import FlowError
from .foreign import owner_of
from .scope import Scope
from .signal import CellNode, Signal, Slot
from .values import NoState, serializable

COUNT = "count"
OBSERVED = "observed"


@cache
def state_class(name: str, fields: tuple[str, ...]) -> type[Any]:
    """The NamedTuple of that name and fields: always the same class, so that states compare."""
    base = namedtuple(name, fields)  # type: ignore[misc]
    members = {"__slots__": (), "__reduce__": _reduce, "__module__": __name__}
    made: type[Any] = type(name, (base,), members)
    serializable(made, fields)
    return made


def make_state(name: str, values: Mapping[str, Any]) -> optax.OptState:
    """A state with these fields; used when unpickling, too."""
    return state_class(name, tuple(values))(**values)


def _reduce(self: Any) -> Any:
    return make_state, (type(self).__name__, self._asdict())


def field_of(state: optax.OptState, name: str) -> Any:
    """A field of a state; FlowError if it has none of that name."""
    if name not in getattr(state, "_fields", ()):
        has = getattr(state, "_fields", type(state).__name__)
        raise FlowError(
            f"the state has no field `{name}`; it has {has}. "
            "Was it made by another transformation's init?"
        )
    return getattr(state, name)


@dataclass
class Group:
    """The named states within one scope.

    Attributes:
      title: name of the NamedTuple.
      fields: field name -> slot or inner group, in order.
      scope: the scope.
      opened: scopes within it whose states stand right among its own.
    """

    title: str
    fields: dict[str, "Slot | Group"]
    scope: Scope
    opened: list[Scope] = field(default_factory=list)

    def pack(
        self, values: Mapping[int, optax.OptState], **extra: optax.OptState | None
    ) -> optax.OptState:
        """The state, from the values of the slots by node index."""
        packed = {
            name: child.pack(values) if isinstance(child, Group) else values[child.index]
            for name, child in self.fields.items()
        }
        fields = {**extra, **packed}
        return state_class(self.title, tuple(fields))(**fields) if fields else NoState()

    def unpack(self, state: optax.OptState, values: dict[int, optax.OptState]) -> None:
        """Enters the value of each slot by node index."""
        for name, child in self.fields.items():
            value = field_of(state, name)
            if isinstance(child, Group):
                child.unpack(value, values)
            else:
                values[child.index] = value

    def slots(self, prefix: str = "") -> dict[str, Slot]:
        """Dotted path -> slot."""
        found: dict[str, Slot] = {}
        for name, child in self.fields.items():
            path = f"{prefix}.{name}" if prefix else name
            found.update(child.slots(path) if isinstance(child, Group) else {path: child})
        return found

    def names(self) -> dict[int, str]:
        """What each slot and each inner scope is called, by its id.

        Where a scope has the name of the only state in it, what leads to that state, and the state
        itself, have the empty name.
        """
        found = {id(scope): "" for scope in (self.scope, *self.opened)}
        here = set(found)
        for name, child in self.fields.items():
            if isinstance(child, Group):
                found |= {**child.names(), id(child.scope): name}
                continue
            way: list[Slot | Scope] = [child]
            scope = child.scope
            while id(scope) not in here:
                way.append(scope)
                scope = scope.parent  # type: ignore[assignment]
            found |= {**{id(inner): "" for inner in way}, id(way[-1]): name}
        return found


def arrange(slots: tuple[Slot, ...], root: Scope, title: str) -> Group:
    """Groups the slots by scope and gives each a name that is unique in its scope."""
    stored = [slot for slot in slots if not (isinstance(slot, CellNode) and slot.cell.stateless)]
    group = _group(contents(stored, root), root, title)
    clash = {COUNT, OBSERVED} & set(group.fields)
    if clash:
        raise FlowError(f"the state name {clash.pop()!r} is reserved")
    return group


def contents(nodes: Iterable[Signal], root: Scope) -> dict[int, list[Any]]:
    """What each scope contains, by its id: nodes and inner scopes, in order of appearance."""
    tree: dict[int, list[Any]] = {}
    for node in nodes:
        _enter(tree, root, node, node.scope)
    return tree


def _enter(tree: dict[int, list[Any]], root: Scope, child: Signal | Scope, scope: Scope) -> None:
    siblings = tree.setdefault(id(scope), [])
    if not any(child is sibling for sibling in siblings):
        siblings.append(child)
    if scope is not root:
        assert scope.parent is not None
        _enter(tree, root, scope, scope.parent)


def _group(tree: dict[int, list[Any]], scope: Scope, title: str) -> Group:
    """The states within a scope.

    A method in a chain has its states there, as without the chain, where no name is another
    part's.
    """
    group = Group(title, {}, scope)
    children = tree.get(id(scope), [])
    methods = {id(child) for child in children if isinstance(child, Scope) and child.whole}
    found: dict[int, dict[str, Slot | Group]] = {}
    taken: set[str] = set()
    for child in sorted(children, key=lambda child: id(child) in methods):
        found[id(child)] = _named(tree, child, scope, taken)
        if id(child) in methods:
            inner = _group(tree, child, title)
            if not taken & set(inner.fields):
                found[id(child)] = inner.fields
                group.opened += [child, *inner.opened]
        taken |= set(found[id(child)])
    group.fields = {name: x for child in children for name, x in found[id(child)].items()}
    return group


def _named(
    tree: dict[int, list[Any]], child: Slot | Scope, scope: Scope, taken: Container[str]
) -> dict[str, Slot | Group]:
    """A slot or scope under a name of its own."""
    if isinstance(child, Slot):
        hint = child.hint if child.explicit or child.hint != "delay" else scope.hint
        return {_free(hint, child.explicit, taken): child}
    inner = _group(tree, child, title_of(child.label))
    name = _free(child.hint, child.explicit, taken)
    return {name: _collapsed(inner, tree[id(child)], child.explicit, child.method)}


def _collapsed(inner: Group, children: list[Any], named: bool, wraps: bool) -> Slot | Group:
    """A scope whose only state has no name of its own gives it its name.

    A name that the user chose goes further down, to the only state of an only scope. A method that
    has nothing but the state of another one leaves it its name.
    """
    only = children[0] if len(children) == 1 else None
    if only is None or only.explicit or (wraps and _is_method(only) and not named):
        return inner
    if isinstance(only, Slot):
        return only
    fields = list(inner.fields.values())
    return fields[0] if named and len(fields) == 1 and isinstance(fields[0], Slot) else inner


def _is_method(node: Slot | Scope) -> bool:
    """Whether a node holds what a method does, by its name, which it has wherever it stands."""
    held = node.cell.children if isinstance(node, CellNode) else ()
    owners = filter(None, map(owner_of, held))
    return any(owner.whole and owner.name == node.hint for owner in owners)


def _free(hint: str, explicit: bool, taken: Container[str]) -> str:
    if hint not in taken:
        return hint
    if explicit:
        raise FlowError(f"two states are named {hint!r}; names must differ within a flow")
    number = 2
    while f"{hint}_{number}" in taken:
        number += 1
    return f"{hint}_{number}"


def title_of(label: str) -> str:
    """Name of the NamedTuple for the states within a transformation."""
    return "".join(word[:1].upper() + word[1:] for word in label.split("_")) + "State"

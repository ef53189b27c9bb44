"""Which inputs a transformation needs beside the gradients."""

import optax

from .foreign import owner_of, refuse_other_than_transformations
from .graph import Graph
from .signal import CellNode, Delay, Function, Input, Signal

HOW_TO_PASS = {
    "params": "the parameters at which the gradient was taken",
    "value": "the loss at params",
    "value_fn": "a function params -> loss on this batch",
    "grad_fn": "a function params -> gradient, or vector field of a game, on this batch",
    "operator_fn": "a function params -> operator of a variational inequality, this worker's own",
    "logits_fn": "a function params -> logits of this batch",
    "proxy_fn": "a function params -> loss of the cheaper proxy",
    "value_fns": "the losses of the domains, functions params -> loss",
    "previous_grads": "the gradient of this batch at the previous params",
    "guess": "a tree like the gradients, along which they are projected",
    "hessian_diag": "the diagonal of the Hessian at params",
    "layer_inputs": "what enters each layer, per example; gradchain.layers captures it",
    "layer_cotangents": "the gradient of the mean loss with respect to what leaves each layer; "
    "gradchain.layers captures it",
}


def needs(transformation: optax.GradientTransformation) -> tuple[str, ...]:
    """Names of the inputs that `transformation.update` must be given beside the gradients.

    A function of a transformation.

    Args:
      transformation: any Optax transformation; of foreign ones nothing is known.

    Returns:
      Names such as ("params", "value_fn"), `params` first.
    """
    refuse_other_than_transformations("needs", transformation)
    program = owner_of(transformation)
    return tuple(getattr(transformation, "needs", ())) if program is None else program.needs


def needs_of(graph: Graph) -> tuple[str, ...]:
    """Names of the inputs without which the graph cannot run."""
    found = {name for name, node in graph.inputs.items() if not node.optional}
    for node in graph.live:
        if isinstance(node, CellNode):
            found.update(node.cell.needs)
        if isinstance(node, Function):
            found.update(node.needs)
    return tuple(sorted(found, key=lambda name: (name != "params", name)))


def reads_updates(graph: Graph) -> bool:
    """Whether what comes out depends on the incoming updates, not just on their structure."""
    pending: list[Signal] = [n for n in graph.live if isinstance(n, Input) and n.name == "updates"]
    while pending:
        source = pending.pop()
        if graph.output is source:
            return True
        for node in graph.live:
            if isinstance(node, Delay):  # of the signal that it is like, it has the shapes alone
                if node.written is source:
                    return True
            elif any(arg is source for arg in node.args):
                if isinstance(node, Function) and hasattr(node.fn, "passes_on"):
                    pending.append(node)
                elif _reads_entries(node):
                    return True
    return False


def _reads_entries(node: Signal) -> bool:
    if isinstance(node, CellNode):
        programs = [owner_of(child) for child in node.cell.children]
        return not programs or any(p is None or reads_updates(p.graph) for p in programs)
    return not (isinstance(node, Function) and hasattr(node.fn, "reads_structure_only"))


def missing_input(label: str, name: str) -> str:
    """The message for an input that was not given."""
    what = HOW_TO_PASS.get(name)
    call = "update(grads, state, params)"
    if name != "params":
        call = f"update(grads, state, params, {name}=...)"
    return f"{label} needs `{name}`{f' ({what})' if what else ''}: call {call}"

"""Factorisations: those of JAX, in programs that do not stand still with few threads."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import chex
import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation import linalg

ROOT = Path(gradchain.__file__).parent
WITHOUT_WAITING = {"norm", "matrix_power", "multi_dot", "outer", "cross", "cg", "vector_norm"}
"""Of JAX's linear algebra what is made of products and sums; the rest jaxlib spreads."""

NAMES = ("eigh", "qr", "svd", "solve", "inv", "expm", "singular_values", "cholesky")
PAIRS = ("solve", "cho_solve", "solve_triangular")
JAX = {
    "cho_solve": lambda x, y: jax.scipy.linalg.cho_solve((x, True), y),
    "solve_triangular": jax.scipy.linalg.solve_triangular,
    "svd": lambda x: jnp.linalg.svd(x, full_matrices=False),
    "expm": jax.scipy.linalg.expm,
    "singular_values": jnp.linalg.svdvals,
}


def total(fn):
    return lambda *args: sum(jnp.sum(x**3) for x in jax.tree.leaves(fn(*args)))


@pytest.mark.parametrize("name", sorted({*NAMES, *PAIRS}))
def test_they_are_those_of_jax(name):
    ours, theirs = getattr(linalg, name), JAX.get(name) or getattr(jnp.linalg, name)
    x = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    x = x @ x.swapaxes(-1, -2) + np.diag(np.arange(4, dtype=np.float32))
    args = (x, x[:, :, :2]) if name in PAIRS else (x,)

    def all_of(fn):
        """Values, alone, together and under vmap; derivatives of either mode."""
        alone = jax.tree.leaves(fn(*(a[0] for a in args)))
        tangent = jax.tree.leaves(jax.jvp(fn, args, args)[1])
        slope = jax.grad(total(fn))(*args)
        return (
            alone,
            jax.tree.leaves(fn(*args)),
            jax.tree.leaves(jax.vmap(fn)(*args)),
            tangent,
            slope,
        )

    chex.assert_trees_all_close(
        jax.jit(lambda: all_of(ours))(), all_of(theirs), rtol=2e-4, atol=2e-4
    )
    chex.assert_trees_all_close(
        jax.tree.leaves(ours(*args)), jax.tree.leaves(theirs(*args)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 4)])
def test_leading_vectors_of_matrices_of_any_form(shape):
    """Through the triangular factor of a long one, also where whole columns are no numbers."""
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    left, values, right = jax.jit(lambda x: linalg.svd(x, leading=2))(x)
    exact = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(values, exact[1], rtol=1e-5)
    for found, true in ((left, exact[0][..., :2]), (right.mT, exact[2].mT[..., :2])):
        np.testing.assert_allclose(found @ found.mT, true @ true.mT, atol=1e-5)
    huge = jax.jit(lambda x: linalg.svd(x, leading=2))(x / abs(x).max() * np.float32(3e38))
    np.testing.assert_allclose(abs(huge[2]), abs(right), atol=1e-4)
    alike = jax.grad(lambda x: linalg.svd(x)[1].sum())(x[0])
    np.testing.assert_allclose(alike, exact[0][0] @ exact[2][0], atol=1e-5)


def test_normal_equations_have_their_derivatives_where_rows_are_not_of_full_rank():
    """The second, too; alone and in a stack, of complex entries as well."""
    made = np.random.default_rng(0)
    rows, below = made.normal(size=(2, 7, 3)), np.stack([np.eye(3)] * 2)
    rows[1, :, 1] = 0
    args = (rows * (1 + 0.5j), below, made.normal(size=(2, 3, 1)) * (1 - 1j))

    def plain(rows, below, right):
        normal = rows.mT.conj() @ rows + below.mT.conj() @ below
        return jnp.linalg.solve(normal, right)

    def all_of(fn):
        def length(rows):
            return jnp.sum(jnp.abs(fn(rows, *args[1:])) ** 2)

        slope = jax.grad(length)
        alone = fn(*(a[1] for a in args))
        return fn(*args), alone, slope(args[0]), jax.jvp(slope, args[:1], args[:1])[1]

    with jax.enable_x64():
        args = tuple(map(jnp.asarray, args))
        found = jax.jit(lambda: all_of(linalg.solve_normal))()
        chex.assert_trees_all_close(found, all_of(plain), rtol=1e-9, atol=1e-12)


def test_a_vector_on_the_right_of_a_system():
    x = jnp.array([[2.0, 0.0], [0.0, 4.0]])
    assert linalg.solve(x, jnp.array([2.0, 4.0])).tolist() == [1.0, 1.0]


def test_every_factorisation_is_one_of_these():
    """Nothing in the package calls a function of JAX that waits for a pool of threads."""
    found = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] not in ("transforms", "optimizers", "layers", "schedules"):
            continue
        if parts[-2:] == ("notation", "linalg.py"):
            continue
        tree = ast.parse(path.read_text())
        found += [f"{'/'.join(parts)} {name}" for name in of_jax(tree) - WITHOUT_WAITING]
    assert found == []


def of_jax(tree: ast.AST) -> set[str]:
    """What is called of, or imported from, a module of JAX's linear algebra."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jax"):
            names = {alias.name for alias in node.names}
            found |= names if node.module.endswith("linalg") else names & {"linalg"}
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if "jax" in a.name and "linalg" in a.name}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            if of.endswith("linalg") and of not in ("linalg", "np.linalg"):
                found.add(node.func.attr)
    return found


def test_what_is_imported_from_jax_is_seen():
    assert of_jax(ast.parse("from jax.scipy.linalg import cho_solve")) == {"cho_solve"}
    assert of_jax(ast.parse("import jax.scipy.linalg as linalg")) == {"jax.scipy.linalg"}
    assert of_jax(ast.parse("jnp.linalg.qr(x)")) == {"qr"}


SIDE_BY_SIDE = """
import jax, numpy as np
from {module} import cholesky, eigh, qr, solve
from {triangular} import solve_triangular

random = np.random.default_rng(0)
x = [np.float32(random.normal(size=(6, 20 + i, 20 + i))) for i in range(12)]
fns = [lambda x: eigh(x @ x.swapaxes(-1, -2)), qr, lambda x: solve(x, x[:, :, :2])]
step = jax.jit(lambda x: [fns[i % 3](batch) for i, batch in enumerate(x)])
under_vmap = jax.jit(lambda x: [jax.vmap(fns[1])(batch[:, None]) for batch in x[:6]])
large = [np.float32(random.normal(size=(6, 100 + i, 100 + i))) for i in range(12)]
definite = [batch @ batch.swapaxes(-1, -2) for batch in large]
factors = jax.jit(lambda x: [cholesky(batch) for batch in x])
systems = jax.jit(lambda x: [solve_triangular(batch, batch) for batch in x])
for _ in range(50):
    jax.block_until_ready((step(x), under_vmap(x), factors(definite), systems(large)))
"""

METHODS = """
import jax, numpy as np
from gradchain.optimizers import distributed_shampoo, galore, psgd_kron, shampoo, soap

random = np.random.default_rng(0)
mesh = jax.make_mesh((jax.device_count(),), "x", axis_types=(jax.sharding.AxisType.Explicit,))
jax.set_mesh(mesh)
g = {{str(i): np.float32(random.normal(size=(56 + 8 * (i // 4), 64))) for i in range(8)}}
g = jax.device_put(g, jax.NamedSharding(mesh, jax.P(None, "x")))
opts = [distributed_shampoo(0.1, block_size=8), shampoo(0.1), soap(0.1), galore(0.1, rank=2)]
opts.append(psgd_kron(0.1, mode="whiten"))
step = jax.jit(lambda g, states: [o.update(g, s, g) for o, s in zip(opts, states)])
states = [opt.init(g) for opt in opts]
for _ in range(50):
    states = [state for _, state in jax.block_until_ready(step(g, states))]
"""


def run(program, **environment):
    # In a process of its own, which can be ended: the failure is to stand still.
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, timeout=300, env=os.environ | environment)


def test_factorisations_side_by_side_do_not_starve_two_threads():
    ours = "gradchain.transforms.notation.linalg"
    run(SIDE_BY_SIDE.format(module=ours, triangular=ours), NPROC="2")


@pytest.mark.by_hand
def test_those_of_jax_do():
    theirs = {"module": "jax.numpy.linalg", "triangular": "jax.scipy.linalg"}
    with pytest.raises(subprocess.TimeoutExpired):
        run(SIDE_BY_SIDE.format(**theirs), NPROC="2")


@pytest.mark.by_hand
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("threads", ["1", "2", "3", "4", "16"])
def test_methods_side_by_side_never_stand_still(threads, devices):
    for _ in range(5):
        flags = f"--xla_force_host_platform_device_count={devices}"
        run(METHODS.format(), NPROC=threads, XLA_FLAGS=flags)

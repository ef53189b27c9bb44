"""GaLore."""

from ...transforms import (
    Flow,
    Signal,
    every,
    flow,
    leaf_where,
    merge,
    named,
    project,
    split,
    svd_basis,
    transformation,
    unproject,
)
from ..adaptive.adam import scale_by_adam


@transformation()
def scale_by_galore(
    rank=128, update_interval=200, scale=0.25, b1=0.9, b2=0.999, eps=1e-6, projection="std"
) -> Flow:
    wide = leaf_where(lambda x: x.ndim == 2 and min(x.shape) > rank)

    def step(g: Signal) -> Signal:
        matrices, others = split(g, wide)
        basis = matrices >> named("basis", every(update_interval, svd_basis(rank, projection)))
        low = project(basis, matrices) >> named("low", scale_by_adam(b1, b2, eps))
        return merge(scale * unproject(basis, low), others >> scale_by_adam(b1, b2, eps))

    return flow(step)

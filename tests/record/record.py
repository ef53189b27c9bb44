"""Records runs of published packages, in the format of `tests/references/README.md`.

    python tests/record/record.py [pattern] [source]

in an environment with `requirements.txt` regenerates, bit for bit, the records that this script
owns (those whose `meta` has `recorded_by`), or those of one source alone, of which then no other
package has to be installed. Everything runs in float64 on the CPU.

A case says what is run, with which arguments in the package's names, and what that is in ours. Only
settings are recorded for which the method's specification follows that package; where the package
differs in a detail that an argument can silence (where eps sits), it is silenced and the case's
notes say so.
"""

import fnmatch
import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import torch
from cases import CASES
from recording import record

REFERENCES = Path(__file__).parents[1] / "references"
SOURCES = Path(__file__).parent / "sources"


def main(pattern: str = "*", source: str = "*") -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", True)
    for path in sorted(SOURCES.glob(f"from_{source}.py")):
        importlib.import_module(f"sources.{path.stem}")
    names = [spec.name for spec in CASES]
    if len(set(names)) != len(names):
        raise ValueError("two cases of one name")
    for spec in CASES:
        if fnmatch.fnmatch(spec.name, pattern):
            meta, arrays = record(spec)
            path = REFERENCES / f"{spec.name}.npz"
            np.savez_compressed(path, meta=json.dumps(meta), **arrays)
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])

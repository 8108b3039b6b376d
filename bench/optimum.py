"""The best placement that there can be: an integer programme, solved by HiGHS. For small swarms.

Every node takes one span, of at most as many layers as it holds; the rate of the slowest layer is made as large as it
can be. Whether spans join is left out, so that what comes out is never less than what a placement may reach.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import highspy
import numpy as np

from p2pos.errors import InternalError
from p2pos.shard.placement import Node


@dataclass(frozen=True, slots=True)
class Optimum:
    """Tokens per second through the slowest layer."""

    reached: float
    """By the best placement that was found."""
    bound: float
    """That none exceeds."""


def slowest_layer(layers: int, nodes: Sequence[Node], *, limit_s: float) -> Optimum:
    """Solve it, or come as near as the time allows.

    Args:
        layers: how many the model has.
        nodes: some ten at most.
        limit_s: seconds.

    Raises InternalError where not even one placement was found.

    """
    unit = sum(node.rate for node in nodes) / layers  # all figures near 1, as solvers like them
    with _banner_to_standard_error():
        solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("time_limit", limit_s)
    solver.changeObjectiveSense(highspy.ObjSense.kMaximize)
    for _ in range(layers):  # what passes through a layer, less the slowest layer's rate
        solver.addRow(0.0, highspy.kHighsInf, 0, _NONE, _NO_VALUES)
    for _ in nodes:  # a node takes one span at most
        solver.addRow(0.0, 1.0, 0, _NONE, _NO_VALUES)
    # no layer can have more than its share of all there is, which is 1
    solver.addCol(1.0, 0.0, 1.0, layers, np.arange(layers, dtype=np.int32), np.full(layers, -1.0))
    for owner, node in enumerate(nodes):
        for length in range(1, min(node.most, layers) + 1):
            for start in range(layers - length + 1):
                rows = np.array([*range(start, start + length), layers + owner], dtype=np.int32)
                rates = np.array([node.rate / length / unit] * length + [1.0])
                solver.addCol(0.0, 0.0, 1.0, len(rows), rows, rates)
                solver.changeColIntegrality(solver.getNumCol() - 1, highspy.HighsVarType.kInteger)
    solver.run()
    found = solver.getInfo()
    if found.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        raise InternalError(f"no placement was found in {limit_s:g} s")
    return Optimum(found.objective_function_value * unit, found.mip_dual_bound * unit)


@contextmanager
def _banner_to_standard_error() -> Iterator[None]:
    """The library says its name on standard output when it begins; that is the bench's answer's alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


_NONE, _NO_VALUES = np.empty(0, dtype=np.int32), np.empty(0)

"""The best placement that there can be: an integer programme, solved by HiGHS (scipy). For small swarms.

Every node takes one span, of at most as many layers as it holds; the rate of the slowest layer is made as large as it
can be. Whether spans join is left out, so that what comes out is never less than what a placement may reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

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

    """
    spans = [
        (owner, start, start + length)
        for owner, node in enumerate(nodes)
        for length in range(1, min(node.most, layers) + 1)
        for start in range(layers - length + 1)
    ]
    unit = sum(node.rate for node in nodes) / layers  # all figures near 1, as solvers like them
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for column, (owner, start, end) in enumerate(spans):
        rows += range(start, end)
        columns += [column] * (end - start)
        values += [nodes[owner].rate / (end - start) / unit] * (end - start)
    rows += range(layers)
    columns += [len(spans)] * layers
    values += [-1.0] * layers
    covered = csr_array((values, (rows, columns)), shape=(layers, len(spans) + 1))
    owners = [owner for owner, _, _ in spans]
    chosen = csr_array(([1.0] * len(spans), (owners, range(len(spans)))), shape=(len(nodes), len(spans) + 1))
    cost = np.zeros(len(spans) + 1)
    cost[-1] = -1.0
    found = milp(
        cost,
        integrality=[1] * len(spans) + [0],
        bounds=Bounds(0.0, [1.0] * len(spans) + [1.0]),  # no layer can have more than its share of all there is
        constraints=LinearConstraint(
            vstack([covered, chosen]), [0.0] * layers + [0.0] * len(nodes), [np.inf] * layers + [1.0] * len(nodes)
        ),
        options={"time_limit": limit_s},
    )
    if found.x is None:
        raise InternalError(f"no placement was found: {found.message}")
    return Optimum(-float(found.fun) * unit, -float(found.mip_dual_bound) * unit)

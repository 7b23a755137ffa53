"""Into which interval between sorted knots each of many scores falls, and look-ups in tables shared out among the threads of a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 8
"""The threads of a CPU that share out what goes through a table, a row of a chunk each, at most: a power of 2 that divides a chunk."""

CELLS_PER_EDGE, MIN_CELLS, MAX_CELLS = 32, 1 << 16, 1 << 18
MAX_ROUNDS = 5
"""More rounds than this within one cell of the grid, and a binary search over all knots is the faster way to find an interval."""


def interval_finder(edges: Tensor, floor: Tensor, num_scores: int) -> Callable[[Tensor], Tensor]:
    """A function from (n,) scores in [floor, edges[-1]] or NaN to (n,) int32, the number of edges <= each score.

    A binary search over thousands of knots would take most of a loss's time. On a CPU the scores' range is cut into equal cells; a table
    holds the number of edges below each cell, and a short search goes through the few edges within a cell: a look-up and a round or two.
    The cell of a score is a monotone function of it, rounding included, and edges go through the same function: so the result is the long
    search's on every score.
    """

    def search(scores: Tensor) -> Tensor:
        return torch.bucketize(torch.where(scores.isnan(), floor, scores), edges, right=True, out_int32=True)

    if edges.device.type != "cpu" or num_scores < 1 << 13:
        return search
    cells = min(max(1 << (CELLS_PER_EDGE * len(edges)).bit_length() - 1, MIN_CELLS), MAX_CELLS)
    lowest, width, finite = float(floor), float(edges[-1]) - float(floor), torch.finfo(edges.dtype)
    if not finite.tiny * cells < width < finite.max:  # the cell would overflow; false for NaN too
        return search
    scale = (cells - 1) / width

    def cell_of(scores: Tensor) -> Tensor:
        # A NaN becomes an arbitrary integer: the clamp makes it a cell.
        return ((scores - lowest) * scale).to(torch.int32).clamp_(0, cells - 1)

    edges_in_cell = torch.bincount(cell_of(edges), minlength=cells)
    rounds = int(edges_in_cell.max()).bit_length()
    if rounds > MAX_ROUNDS:
        return search
    below_cell = (edges_in_cell.cumsum(0) - edges_in_cell).to(torch.int32)
    # Round r asks whether another 2^r edges lie at or below the score: shifted by 2^r - 1, and none beyond the end, where a NaN may look.
    signed, as_integer, sign_bit = signed_edges(edges)
    padded = torch.cat([signed, edges.new_full((1 << rounds,), torch.inf)])
    ahead = [padded[(1 << r) - 1 :] for r in range(rounds)]

    def look_up(scores: Tensor) -> Tensor:
        interval = take(below_cell, cell_of(scores))
        for r in reversed(range(rounds)):
            # 2^r more where score - edge >= 0: a comparison takes twice as long as the sign, which shifts to -1 or 0.
            short = (scores - take(ahead[r], interval)).view(as_integer).bitwise_right_shift_(sign_bit)
            interval.add_(short, alpha=1 << r).add_(1 << r)
        return interval.clamp_(max=len(edges))  # a NaN may have gone too far

    return look_up


def signed_edges(edges: Tensor) -> tuple[Tensor, torch.dtype, int]:
    """The edges such that the sign of ``score - edge`` says whether the score is below, and how to read the sign: the edge 0 is -0.0, from
    which either zero is +0.0 away."""
    sign_bit = 8 * edges.element_size() - 1
    return torch.where(edges == 0, -0.0, edges), torch.int32 if sign_bit == 31 else torch.int64, sign_bit


def take(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``. On a CPU ``index_select`` runs on one thread, 0.6 ns a number; ``gather`` takes as long and shares out rows."""
    rows = rows_of(index)
    if rows == 1:
        return table.index_select(0, index)
    return table.expand(rows, -1).gather(1, index.long().view(rows, -1)).view(-1)


def rows_of(index: Tensor) -> int:
    """Into how many rows a chunk is cut: one a thread, and one of all where there is a rest."""
    return 1 if index.device.type != "cpu" or len(index) % ROWS else cpu_rows()


def cpu_rows() -> int:
    return min(ROWS, 1 << (torch.get_num_threads() - 1).bit_length())

import torch

from ajour import Diagonal, Full, Skip, TokenGrid
from ajour.search import head_costs


def test_less_work_costs_less():
    costs = head_costs(
        [Full(), Diagonal(1.0), Skip()], TokenGrid(12, 12, 12), 2, 32, torch.float32,
        torch.device("cpu"), repeats=3,
    )  # fmt: skip
    assert costs[0] > costs[1] > costs[2] > 0

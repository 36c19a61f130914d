"""Times of layers by the clock of the GPU, and tables that layers share."""

import torch

from ajour import Full, Pyramid, TokenGrid, attention, lower
from ajour.pipelines.stopwatch import LayerTimer
from tests.conftest import assert_matches_oracle, random_qkv


def test_only_what_runs_between_two_marks_counts():
    timer = LayerTimer(torch.device("cuda"))
    cycles = 50_000_000
    for before, within in ((0, 1), (4, 1)):
        torch.cuda._sleep(before * cycles)
        timer()
        torch.cuda._sleep(within * cycles)
        timer()
        torch.cuda._sleep(before * cycles)
        torch.cuda.synchronize()
        spent = timer.take()
        assert 0.01 < spent < 0.1  # of clocks from 0.5 to 5 GHz
    assert timer.take() == 0


def test_layers_of_one_table_pool_where_they_have_to():
    grid = TokenGrid(8, 9, 10, after=200)
    far = Pyramid(0, 0, 0, growth=1.1)
    shared = lower([Full(), far], grid).to("cuda")
    q, k, v = random_qkv(grid, 2, 64, torch.bfloat16, device="cuda")
    for rows, level in (([0, 0], 0), ([0, 1], 3)):
        table = shared.with_heads(rows)
        assert table.highest_level == level
        out, lse = attention(q, k, v, table, return_lse=True)
        assert_matches_oracle(q, k, v, table, out, lse)

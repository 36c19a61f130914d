import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ajour import (
    BLOCK,
    BlockTable,
    Captured,
    Full,
    Pyramid,
    Skip,
    TokenGrid,
    Window,
    attention,
    lower,
    order,
)
from ajour.capture import (
    CapturedRows,
    Importance,
    PackedLevels,
    block_mass,
    capture,
    expand,
    first_frame_blocks,
    self_similarity,
)
from ajour.lists import indices
from ajour.lowering import level_map
from tests.conftest import random_qkv

GRIDS = [
    TokenGrid(3, 7, 9),
    TokenGrid(4, 8, 8),
    TokenGrid(2, 9, 11, before=7, after=30),
    TokenGrid(1, 3, 3),
]


def in_blocks(grid, name):
    """Model-order token indices of each block."""
    tokens = order(name, grid.shape) + grid.before
    return [tokens[i : i + BLOCK] for i in range(0, len(tokens), BLOCK)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", ["bisection", "raster"])
def test_mass_is_the_share_of_attention(grid, name):
    q, k, _ = random_qkv(grid, 2, 16, batch=2)
    blocks = in_blocks(grid, name)
    video = np.concatenate(blocks)
    weights = torch.einsum("bqhd,bkhd->bhqk", q[:, video], k[:, video]).mul(0.25).softmax(-1)
    starts = np.arange(len(blocks)) * BLOCK
    shares = np.add.reduceat(weights.mean(0).numpy(), starts, axis=2)
    sizes = [len(block) for block in blocks]
    expected = np.add.reduceat(shares, starts, axis=1) / np.array(sizes)[:, None]
    all_of_a_full_block = block_mass(q, k, grid, name, samples=BLOCK)
    whole = [i for i, size in enumerate(sizes) if size == BLOCK]
    np.testing.assert_allclose(all_of_a_full_block[:, whole], expected[:, whole], atol=1e-5)
    torch.testing.assert_close(block_mass(q, k, grid, name).sum(-1), torch.ones(2, len(blocks)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mass_is_not_rounded_to_the_dtype_of_the_keys(dtype):
    q, k, _ = random_qkv(GRIDS[1], 2, 16, dtype)
    exact = block_mass(q.double(), k.double(), GRIDS[1], "raster")
    mass = block_mass(q, k, GRIDS[1], "raster")
    torch.testing.assert_close(mass, exact, rtol=1e-5, atol=0)


def test_mass_does_not_depend_on_how_it_is_cut(monkeypatch):
    grid = TokenGrid(3, 9, 11)
    q, k, _ = random_qkv(grid, 2, 16)
    whole = block_mass(q, k, grid, "bisection")
    monkeypatch.setattr("ajour.capture.LOGITS_BYTES", 1)
    torch.testing.assert_close(block_mass(q, k, grid, "bisection"), whole)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_similarity_is_that_of_first_and_last_key(grid):
    _, k, _ = random_qkv(grid, 2, 16, batch=2)
    similarity = self_similarity(k, grid, "bisection")
    for index, block in enumerate(in_blocks(grid, "bisection")):
        for level in (1, 2, 3):
            groups = [block[i : i + 2**level] for i in range(0, len(block), 2**level)]
            cosines = [
                torch.cosine_similarity(k[:, group[0]], k[:, group[-1]], dim=-1).mean(0)
                for group in groups
            ]
            expected = torch.stack(cosines).mean(0)
            torch.testing.assert_close(similarity[:, index, level - 1], expected)


@pytest.mark.parametrize("backend", ["hopper", "triton", "cpu", "reference", None])
def test_measuring_follows_the_backend(backend, monkeypatch):
    """With every backend able to run, by the kernel or by PyTorch."""
    pytest.importorskip("triton")
    q, k, _ = random_qkv(GRIDS[0], 2, 16)
    eager = block_mass(q, k, GRIDS[0], "raster", backend="reference")
    launched = []

    def kernel(*args):
        launched.append(args)
        return eager

    monkeypatch.setattr("ajour.dispatch.backend_reason", lambda *_: None)
    monkeypatch.setattr("ajour.backends.mass.shares_of_blocks", kernel)
    pattern = Captured([0.3, 0.5, 0.7, 0.9], order="raster")
    levels = Importance(q, k, GRIDS[0], backend).levels(pattern)
    assert torch.equal(levels, capture(q, k, GRIDS[0], pattern, backend))
    assert torch.equal(levels, capture(q, k, GRIDS[0], pattern, "reference"))
    assert len(launched) == (0 if backend in ("cpu", "reference") else 2)


@pytest.mark.parametrize("backend", ["hopper", "triton"])
def test_an_explicit_backend_that_cannot_measure_is_refused(backend):
    pytest.importorskip("triton")
    q, k, _ = random_qkv(GRIDS[0], 2, 16)
    with pytest.raises(RuntimeError, match=f"'{backend}' cannot run this: .*GPU"):
        capture(q, k, GRIDS[0], Captured([0.5] * 4), backend)


def test_wrong_arguments_of_measuring_are_refused():
    q, k, _ = random_qkv(GRIDS[0], 2, 16)
    with pytest.raises(ValueError, match="unknown backend 'cuda'"):
        block_mass(q, k, GRIDS[0], "raster", backend="cuda")
    with pytest.raises(ValueError, match="samples must be a power of two, got 3"):
        block_mass(q, k, GRIDS[0], "raster", samples=3)


class Largest(TorchDispatchMode):
    """Watches how many elements the largest result of an operator has; views do not count."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.elements = max(self.elements, out.numel())
        return out


def test_similarity_copies_the_keys_of_a_head_at_a_time():
    _, k, _ = random_qkv(GRIDS[1], 8, 32)
    self_similarity(k, GRIDS[1], "raster")
    with Largest() as largest:
        self_similarity(k, GRIDS[1], "raster")
    assert 0 < largest.elements <= k.numel() / 8


def test_first_frame_blocks():
    grid = TokenGrid(4, 8, 16, before=3)
    assert first_frame_blocks(grid, "raster").tolist() == [True, False, False, False]
    assert first_frame_blocks(grid, "column").tolist() == [True] * 4


def test_ranks_give_every_query_block_the_same_shares():
    mass = torch.rand(2, 20, 20).softmax(-1)
    pattern = Captured([0.15, 0.25, 0.45, 0.9])
    levels = pattern.select(mass, torch.zeros(20, dtype=torch.bool))
    for level, count in ((0, 3), (1, 2), (2, 4), (3, 9), (-1, 2)):
        assert ((levels == level).sum(-1) == count).all()
    finest = mass.masked_fill(levels != 0, 2).amin(-1)
    assert (finest >= mass.masked_fill(levels == 0, -1).amax(-1)).all()
    assert pattern.density == pytest.approx(0.15 + 0.1 / 2 + 0.2 / 4 + 0.45 / 8)


def test_ranks_of_a_layer_favour_concentrated_heads():
    sharp = torch.full((4, 4), 0.01)
    sharp[:, 0] = 0.97
    mass = torch.stack([sharp, torch.full((4, 4), 0.25)])
    levels = Captured([0.125] * 4, scope="layer").select(mass, torch.zeros(4, dtype=torch.bool))
    assert (levels[0, :, 0] == 0).all()
    assert (levels == 0).sum() == 4


def test_mass_thresholds_are_cumulative():
    mass = torch.tensor([[[0.05, 0.5, 0.15, 0.3]]])
    levels = Captured([0.4, 0.7, 0.9, 0.96], share_of="attention").select(
        mass, torch.zeros(4, dtype=bool)
    )
    assert levels.tolist() == [[[3, 0, 2, 1]]]


@pytest.mark.parametrize(
    ("shares", "coarsest"),
    [([0.5, 0.5, 0.5, 1.0], 3), ([0.5, 1.0, 1.0, 1.0], 1), ([1.0] * 4, 0)],
)
def test_nothing_is_dropped_where_the_numbers_end_at_one(shares, coarsest):
    mass = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]]])
    pattern = Captured(shares, share_of="attention")
    levels = pattern.select(mass, torch.zeros(4, dtype=torch.bool))
    assert levels[0, :, 0].tolist() == [0, 0]
    assert (levels[0, :, 2:] == coarsest).all()
    assert torch.equal(PackedLevels.pack(levels, pattern.levels).unpack(), levels)


def test_unknown_levels_are_not_packed():
    levels = torch.tensor([[[0, 3], [3, -1]]], dtype=torch.int8)
    with pytest.raises(RuntimeError, match=r"levels other than \(0, 3\)"):
        PackedLevels.pack(levels, (0, 3))


@pytest.mark.parametrize(
    ("share_of", "scope"), [("blocks", "block"), ("blocks", "layer"), ("attention", "block")]
)
def test_the_first_frame_keeps_its_share(share_of, scope):
    first = torch.arange(8) < 2
    mass = torch.rand(2, 8, 8) * torch.where(first, 1e-3, 1.0)
    mass /= mass.sum(-1, keepdim=True)
    pattern = Captured([0.5] * 4, share_of=share_of, scope=scope, first_frame=True)
    levels = pattern.select(mass, first)
    assert (levels[..., :2] == 0).sum() >= 16
    assert (levels[..., 2:] == 0).sum() <= 0.51 * 96 + (16 if share_of == "attention" else 0)
    without = Captured([0.5] * 4, share_of=share_of, scope=scope).select(mass, first)
    assert (without[..., :2] == 0).sum() == 0


def test_dissimilar_keys_are_pooled_less():
    mass = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]])
    similarity = torch.tensor([[[0.0] * 3, [0.9, 0.2, 0.2], [0.9, 0.9, 0.2], [0.9, 0.9, 0.9]]])
    pattern = Captured([0.0, 0.0, 0.0, 1.0], min_similarity=[0.5, 0.5, 0.5])
    levels = pattern.select(mass, torch.zeros(4, dtype=torch.bool), similarity)
    assert levels.tolist() == [[[0, 1, 2, 3]]]
    assert pattern.levels == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("pattern", "levels", "blocks_per_byte"),
    [
        (Captured([0.2] * 4), (-1, 0), 8),
        (Captured([0.2, 0.2, 0.4, 0.4]), (-1, 0, 2), 5),
        (Captured([0.2, 0.2, 0.2, 1.0]), (0, 3), 8),
        (Captured([0.2, 0.3, 0.4, 1.0]), (0, 1, 2, 3), 4),
        (Captured([0.2, 0.3, 0.4, 0.5], share_of="attention"), (-1, 0, 1, 2, 3), 3),
        (Captured([1.0] * 4), (0,), 8),
    ],
)
def test_packed_levels_come_back(pattern, levels, blocks_per_byte):
    assert pattern.levels == levels
    drawn = torch.tensor(levels, dtype=torch.int8)[torch.randint(len(levels), (3, 11, 11))]
    packed = PackedLevels.pack(drawn, levels)
    assert len(packed.data) == -(-drawn.numel() // blocks_per_byte)
    assert torch.equal(packed.unpack(), drawn)


def test_a_layer_pools_only_if_its_own_heads_do():
    grid, far = TokenGrid(8, 9, 10, after=200), Pyramid(0, 0, 0, growth=1.1, levels=2)
    shared = lower([Full(), far, Skip()], grid)
    layers = [shared.with_heads(rows) for rows in ([0, 0], [2, 1], [2, 2])]
    assert [table.highest_level for table in (shared, *layers)] == [2, 0, 2, 0]
    maps = [level_map(pattern, grid) for pattern in (Full(), far)]
    unused = BlockTable.from_levels(grid, maps, ["raster", "bisection"], [0, 0])
    assert unused.highest_level == 0
    q, k, v = random_qkv(grid, 2, 16)
    for table, patterns in zip(layers, ([Full()] * 2, [Skip(), far], [Skip()] * 2), strict=True):
        lowered = lower(patterns, grid)
        assert table.highest_level == lowered.highest_level
        assert torch.equal(attention(q, k, v, table), attention(q, k, v, lowered))


def test_rows_of_all_layers_are_set_at_once():
    grid = GRIDS[2]
    q, k, v = random_qkv(grid, 3, 16)
    dropping, pooling = Captured([0.3, 0.5, 0.7, 0.9]), Captured([0.2] * 3 + [1.0], order="raster")
    levels = {pattern: capture(q, k, grid, pattern) for pattern in (dropping, pooling)}
    shared = lower([dropping, Window(1, 1, 1), pooling], grid)
    tables = [shared.with_heads(rows) for rows in ([0, 1, 2], [1, 2, 2])]
    rows = [
        [
            CapturedRows.of(levels[dropping][:1], [0], dropping),
            CapturedRows.of(levels[pooling][2:], [2], pooling),
        ],
        [CapturedRows.of(levels[pooling][[0, 2]], [1, 2], pooling)],
    ]
    together = expand(tables, rows)
    assert together[0].ids is together[1].ids
    for table, layer_rows, expanded in zip(tables, rows, together, strict=True):
        for pattern_rows in layer_rows:
            table = expand([table], [[pattern_rows]])[0]
        assert expanded.density() == table.density()
        assert torch.equal(attention(q, k, v, expanded), attention(q, k, v, table))
    with pytest.raises(ValueError, match="must share their lists"):
        expand([shared, lower([dropping, Skip(), pooling], grid)], rows)


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[2], TokenGrid(8, 9, 10, after=200)], ids=str)
def test_rows_set_at_run_time_equal_rows_lowered(grid):
    q, k, v = random_qkv(grid, 3, 16)
    pattern = Captured([0.3, 0.5, 0.7, 0.9])
    levels = capture(q, k, grid, pattern)[[0, 2]]
    levels[0, 0] = -1
    table = lower([pattern, Window(1, 1, 1), pattern], grid)
    (table,) = BlockTable.with_rows([table], [(levels, torch.tensor([0, 2]), 3)])
    assert table.highest_level == 3
    video = grid.video_blocks
    maps = []
    for video_levels in levels.numpy():
        whole = level_map(Full(), grid)
        whole[:video, :video] = video_levels
        whole[:video, video:][(video_levels == -1).all(axis=1)] = -1
        maps.append(whole)
    maps.insert(1, level_map(Window(1, 1, 1), grid))
    names = [pattern.order, Window(1, 1, 1).order, pattern.order]
    expected = BlockTable.from_levels(grid, maps, names, [0, 1, 2])
    assert table.density() == expected.density()
    for backend in ("reference", "cpu"):
        out, lse = attention(q, k, v, table, backend=backend, return_lse=True)
        again, lse_again = attention(q, k, v, expected, backend=backend, return_lse=True)
        assert torch.equal(out, again)
        assert torch.equal(lse, lse_again)


@pytest.mark.parametrize("numbers", [(0,), (2, 3, 4, 7, 1, 0), range(5), ()], ids=str)
def test_indices_are_made_without_a_copy(numbers, monkeypatch):
    expected = torch.tensor(list(numbers), dtype=torch.int64)
    for name in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, name, None)
    made = indices(numbers, torch.device("cpu"))
    assert torch.equal(made, expected)
    levels = torch.zeros(len(numbers), 2, 2, dtype=torch.int8)
    rows = CapturedRows.of(levels, list(numbers), Captured([1.0] * 4))
    assert torch.equal(rows.heads, expected)


def test_before_it_is_measured_a_captured_head_sees_no_video():
    grid = TokenGrid(3, 7, 9, after=4)
    table = lower([Captured([0.5] * 4), Skip()], grid)
    assert table.row_tiles().tolist() == [grid.blocks, grid.blocks]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cumulative_shares": [0.1, 0.2, 0.3]}, "cumulative_shares must be 4 numbers from 0 to 1"),
        (
            {"cumulative_shares": [0.1, 0.2, 0.3, 1.5]},
            "cumulative_shares must be 4 numbers from 0 to 1",
        ),
        ({"cumulative_shares": [0.1, 0.2, 0.3, True]}, "cumulative_shares must be 4 numbers"),
        ({"cumulative_shares": "abcd"}, "cumulative_shares must be 4 numbers"),
        ({"cumulative_shares": [0.4, 0.2, 0.5, 1.0]}, "must not fall"),
        ({"cumulative_shares": [0.0] * 4}, "must end at 0.0001 or above"),
        (
            {"cumulative_shares": [0.5] * 4, "share_of": "size"},
            "share_of must be one of blocks, attention",
        ),
        ({"cumulative_shares": [0.5] * 4, "scope": "model"}, "scope must be one of block, layer"),
        (
            {"cumulative_shares": [0.5] * 4, "share_of": "attention", "scope": "layer"},
            "scope must be 'block'",
        ),
        ({"cumulative_shares": [0.5] * 4, "order": "zigzag"}, "order must be one of raster"),
        ({"cumulative_shares": [0.5] * 4, "first_frame": 1}, "first_frame must be true or false"),
        (
            {"cumulative_shares": [0.5] * 4, "min_similarity": [0.5]},
            "min_similarity must be 3 numbers from -1 to 1",
        ),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Captured(**options)

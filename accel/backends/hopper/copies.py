"""The producer warp of the Hopper kernel, see `kernel.py`: all copies of a program."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from ajour.backends.hopper.work import ITEM_SIZE

load_box = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # Triton < 3.7

BLOCK = gl.constexpr(128)
HALF = gl.constexpr(64)
ITEM = gl.constexpr(ITEM_SIZE)


@gluon.jit
def tile_counts(item, LEVELS: gl.constexpr):
    """Number of masked tiles and of all tiles of a work item, at levels 0 to 3 each."""
    b0 = gl.load(item + 2)
    b1 = gl.load(item + 3)
    masks = gl.load(item + 8)
    m0 = masks & 3
    n0 = b1 - b0
    m1 = n0 * 0
    m2 = m1
    m3 = m1
    n1 = m1
    n2 = m1
    n3 = m1
    if LEVELS > 1:
        b2 = gl.load(item + 4)
        b3 = gl.load(item + 5)
        b4 = gl.load(item + 6)
        n1 = (b2 - b1 + 1) >> 1
        n2 = (b3 - b2 + 3) >> 2
        n3 = (b4 - b3 + 7) >> 3
        m1 = masks >> 2 & 1
        m2 = masks >> 3 & 1
        m3 = masks >> 4 & 1
    return (m0, m1, m2, m3), (n0, n1, n2, n3)


@gluon.jit
def tile_rows(first_row, ids, begin, stop, LEVEL: gl.constexpr):
    """First rows of the 2**LEVEL parts of a tile: the blocks ids[stop - 2**LEVEL : stop].

    Entries before `begin` do not exist: the last block takes their place and is masked later.
    """
    first = stop - (1 << LEVEL)
    shift = gl.maximum(begin - first, 0)
    rows = ()
    for part in gl.static_range(1 << LEVEL):
        # The tile's entries lie at its start; what is missing, at its end.
        entry = gl.minimum(first + shift + part, stop - 1)
        row = first_row + gl.load(ids + entry) * (BLOCK >> LEVEL)
        rows = rows + (row,)  # type: ignore[assignment]
    return rows


@gluon.jit
def copy_rows(source, rows, full, buffer, D: gl.constexpr, LEVEL: gl.constexpr):
    """Copy the parts of a tile that begin at `rows` into a buffer of 128 rows."""
    group: gl.constexpr = BLOCK >> LEVEL
    if LEVEL == 0:
        load_box(source, [rows[0], 0], full, buffer)
    else:
        for part in gl.static_range(1 << LEVEL):
            for panel in gl.static_range(D // 64):
                load_box(
                    source,
                    [rows[part], panel * 64],
                    full,
                    buffer.slice(panel * 64, 64, dim=1).slice(part * group, group, dim=0),
                )


@gluon.jit
def copy_queries(source, row, filled, q_buffers, q_full, q_empty, D: gl.constexpr):
    """Wait until the queries of the previous item have been used, then copy those of this item."""
    for half in gl.static_range(2):
        mbarrier.wait(q_empty.index(half), filled & 1 ^ 1)
        mbarrier.expect(q_full.index(half), HALF * D * 2)
        load_box(source, [row + half * HALF, 0], q_full.index(half), q_buffers.index(half))


@gluon.jit
def copy_tile(
    source_k, source_v, rows, step, ring, start, queries,
    D: gl.constexpr, STAGES: gl.constexpr, LEVEL: gl.constexpr,
):  # fmt: skip
    """Copy the keys of a tile into this step and its values into the next step, which is returned.

    The queries of an item follow its first keys: the last step of the previous item holds these
    keys too, and the consumers need the previous queries until its end.
    """
    k_buffers, v_buffers, full, empty = ring
    stage = step % STAGES
    mbarrier.expect(full.index(stage), BLOCK * D * 2)
    copy_rows(source_k, rows, full.index(stage), k_buffers.index(stage), D, LEVEL)
    if step == start:
        source_q, row, filled, q_buffers, q_full, q_empty = queries
        copy_queries(source_q, row, filled, q_buffers, q_full, q_empty, D)
    following = (step + 1) % STAGES
    mbarrier.wait(empty.index(following), ((step + 1) // STAGES) & 1 ^ 1)
    mbarrier.expect(full.index(following), BLOCK * D * 2)
    copy_rows(source_v, rows, full.index(following), v_buffers.index(stage), D, LEVEL)
    return step + 1


@gluon.jit
def produce(
    sources, q_buffers, q_full, q_empty, ring, work, ids, items, total, heads, blocks,
    D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr,
):  # fmt: skip
    """The producer warp: all copies of a program, in the sequence of the tiles."""
    full = ring[2]
    step = 0
    filled = 0
    mbarrier.arrive(full.index(0), count=1)  # no values come with the first keys
    for index in range(gl.program_id(0), total, gl.num_programs(0)):
        item = work + index % items * ITEM
        batch_head = index // items * heads + gl.load(item)
        row = batch_head * blocks * BLOCK
        masked, counts = tile_counts(item, LEVELS)
        query_row = row + gl.load(item + 1) * BLOCK
        queries = (sources[0], query_row, filled, q_buffers, q_full, q_empty)
        start = step
        begin = gl.load(item + 2)
        for tile in range(masked[0]):
            rows = tile_rows(row, ids, begin, begin + tile + 1, 0)
            step = copy_tile(sources[1], sources[2], rows, step, ring, start, queries, D, STAGES, 0)
        pooled_row = batch_head * blocks * (BLOCK - BLOCK // 8)
        if LEVELS > 1:
            for level in gl.static_range(1, 4):
                if masked[level] > 0:
                    low = gl.load(item + 2 + level)
                    high = gl.load(item + 3 + level)
                    base = pooled_row + blocks * (BLOCK - 2 * (BLOCK >> level))
                    stop = high - ((high - low - 1) >> level << level)
                    step = copy_tile(
                        sources[1 + 2 * level], sources[2 + 2 * level],
                        tile_rows(base, ids, low, stop, level), step, ring, start, queries,
                        D, STAGES, level,
                    )  # fmt: skip
        # Ids are read one tile ahead, before the copy of the current tile waits for a free step.
        n0 = counts[0]
        key_block = gl.load(ids + begin + masked[0], mask=masked[0] < n0, other=0)
        for tile in range(masked[0], n0):
            following = gl.load(ids + begin + tile + 1, mask=tile + 1 < n0, other=0)
            step = copy_tile(
                sources[1], sources[2], (row + key_block * BLOCK,), step, ring, start, queries,
                D, STAGES, 0,
            )  # fmt: skip
            key_block = following
        if LEVELS > 1:
            for level in gl.static_range(1, 4):
                low = gl.load(item + 2 + level)
                high = gl.load(item + 3 + level)
                base = pooled_row + blocks * (BLOCK - 2 * (BLOCK >> level))
                rest = counts[level] - masked[level]
                if rest > 0:
                    rows = tile_rows(base, ids, low, high - (rest - 1 << level), level)
                    for tile in range(rest):
                        stop = high - (gl.maximum(rest - 2 - tile, 0) << level)
                        following = tile_rows(base, ids, low, stop, level)
                        step = copy_tile(
                            sources[1 + 2 * level], sources[2 + 2 * level], rows, step, ring,
                            start, queries, D, STAGES, level,
                        )  # fmt: skip
                        rows = following
        if step > start:
            filled += 1
    mbarrier.arrive(full.index(step % STAGES), count=1)  # no keys come with the last values

"""Block-sparse multi-level attention for Hopper, warp-specialised in Gluon.

One program computes one query block of one head. A producer warp copies queries, keys and values
by TMA into a ring of buffers; two warpgroups compute 64 query rows each and overlap the softmax of
a tile with the matrix product of the tile before.

Both walk a row's tiles in one sequence: first the masked ones (level 0's partial blocks, then the
first tile of each pooled level), then the rest of level 0 and of levels 1 to 3. A level-h tile
gathers the pooled rows of 2**h blocks, 128 >> h rows each, so every tile has 128 keys; that each
row stands for 2**h keys is h in the base-2 logits, the same for the whole tile.

Layouts are those of the portable kernel (`ajour.backends.triton`).
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

load_box = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # Triton < 3.7

BLOCK = gl.constexpr(128)
HALF = gl.constexpr(64)
LN2 = gl.constexpr(0.6931471805599453)


@gluon.jit
def tile_counts(bounds, partial, LEVELS: gl.constexpr):
    """Masked tiles of level 0 and tiles of levels 0 to 3 in a row's lists."""
    b0 = gl.load(bounds)
    b1 = gl.load(bounds + 1)
    n0 = b1 - b0
    n1 = n0 * 0
    n2 = n1
    n3 = n1
    if LEVELS > 1:
        b2 = gl.load(bounds + 2)
        b3 = gl.load(bounds + 3)
        b4 = gl.load(bounds + 4)
        n1 = (b2 - b1 + 1) >> 1
        n2 = (b3 - b2 + 3) >> 2
        n3 = (b4 - b3 + 7) >> 3
    return gl.minimum(partial, n0), n0, n1, n2, n3


@gluon.jit
def copy_tile(source_k, source_v, row, step, ring, STAGES: gl.constexpr, SPAN: gl.constexpr):
    """Wait for a free buffer, then copy 128 consecutive rows of keys and values."""
    k_buffers, v_buffers, k_full, k_empty, v_full, v_empty = ring
    stage = step % STAGES
    phase = (step // STAGES) & 1 ^ 1
    mbarrier.wait(k_empty.index(stage), phase)
    mbarrier.expect(k_full.index(stage), SPAN)
    load_box(source_k, [row, 0], k_full.index(stage), k_buffers.index(stage))
    mbarrier.wait(v_empty.index(stage), phase)
    mbarrier.expect(v_full.index(stage), SPAN)
    load_box(source_v, [row, 0], v_full.index(stage), v_buffers.index(stage))


@gluon.jit
def copy_parts(
    source, first_row, ids, begin, stop, full, buffer, D: gl.constexpr, LEVEL: gl.constexpr
):
    """Copy the pooled rows of blocks ids[stop - 2**LEVEL : stop] into a buffer of 128 rows.

    Entries before `begin` are missing; the first block stands in, and the consumer masks it.
    """
    group: gl.constexpr = BLOCK >> LEVEL
    first = stop - (1 << LEVEL)
    shift = gl.maximum(begin - first, 0)
    for part in gl.static_range(1 << LEVEL):
        # The tile's entries lie at its start; what is missing, at its end.
        entry = gl.minimum(first + shift + part, stop - 1)
        row = first_row + gl.load(ids + entry) * group
        for panel in gl.static_range(D // 64):
            load_box(
                source,
                [row, panel * 64],
                full,
                buffer.slice(panel * 64, 64, dim=1).slice(part * group, group, dim=0),
            )


@gluon.jit
def copy_pooled(
    source_k, source_v, first_row, ids, begin, stop, step, ring,
    D: gl.constexpr, STAGES: gl.constexpr, SPAN: gl.constexpr, LEVEL: gl.constexpr,
):  # fmt: skip
    """Wait for a free buffer, then gather the pooled rows of one tile."""
    k_buffers, v_buffers, k_full, k_empty, v_full, v_empty = ring
    stage = step % STAGES
    phase = (step // STAGES) & 1 ^ 1
    mbarrier.wait(k_empty.index(stage), phase)
    mbarrier.expect(k_full.index(stage), SPAN)
    copy_parts(
        source_k, first_row, ids, begin, stop, k_full.index(stage), k_buffers.index(stage), D, LEVEL
    )
    mbarrier.wait(v_empty.index(stage), phase)
    mbarrier.expect(v_full.index(stage), SPAN)
    copy_parts(
        source_v, first_row, ids, begin, stop, v_full.index(stage), v_buffers.index(stage), D, LEVEL
    )


@gluon.jit
def produce(
    sources, q_buffers, q_full, ring, bounds, ids, batch_head, block, blocks, partial,
    D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr, SPAN: gl.constexpr,
):  # fmt: skip
    """The producer warp: every copy of a program, in the sequence of the tiles."""
    first_row = batch_head * blocks * BLOCK
    masked, n0, n1, n2, n3 = tile_counts(bounds, partial, LEVELS)
    if n0 + n1 + n2 + n3 > 0:
        for half in gl.static_range(2):
            mbarrier.expect(q_full.index(half), SPAN // 2)
            load_box(
                sources[0],
                [first_row + block * BLOCK + half * HALF, 0],
                q_full.index(half),
                q_buffers.index(half),
            )
    begin = gl.load(bounds)
    key_block = gl.load(ids + begin, mask=n0 > 0, other=0)
    for step in range(masked):
        following = gl.load(ids + begin + step + 1, mask=step + 1 < n0, other=0)
        row = first_row + key_block * BLOCK
        copy_tile(sources[1], sources[2], row, step, ring, STAGES, SPAN)
        key_block = following
    step = masked
    pooled_row = batch_head * blocks * (BLOCK - BLOCK // 8)
    if LEVELS > 1:
        for level in gl.static_range(1, 4):
            low = gl.load(bounds + level)
            high = gl.load(bounds + level + 1)
            if high > low:
                base = pooled_row + blocks * (BLOCK - 2 * (BLOCK >> level))
                stop = high - ((high - low - 1) >> level << level)
                copy_pooled(
                    sources[1 + 2 * level], sources[2 + 2 * level], base, ids, low, stop, step,
                    ring, D, STAGES, SPAN, level,
                )  # fmt: skip
                step += 1
    for entry in range(masked, n0):
        following = gl.load(ids + begin + entry + 1, mask=entry + 1 < n0, other=0)
        row = first_row + key_block * BLOCK
        copy_tile(sources[1], sources[2], row, step, ring, STAGES, SPAN)
        key_block = following
        step += 1
    if LEVELS > 1:
        for level in gl.static_range(1, 4):
            low = gl.load(bounds + level)
            high = gl.load(bounds + level + 1)
            base = pooled_row + blocks * (BLOCK - 2 * (BLOCK >> level))
            rest = gl.maximum(high - low - 1, 0) >> level
            for tile in range(rest):
                stop = high - (rest - 1 - tile << level)
                copy_pooled(
                    sources[1 + 2 * level], sources[2 + 2 * level], base, ids, low, stop, step,
                    ring, D, STAGES, SPAN, level,
                )  # fmt: skip
                step += 1


@gluon.jit
def masked_bias(
    step, masked, n1, n2, bounds, ids, valid, LAYOUT: gl.constexpr, LEVELS: gl.constexpr
):
    """Base-2 logit bias (128,) of the keys of masked tile `step`; -inf for keys that are none."""
    lane = gl.arange(0, BLOCK, layout=LAYOUT)
    level = step * 0
    if LEVELS > 1:
        ordinal = step - masked
        has1 = (n1 > 0).to(gl.int32)
        has2 = has1 + (n2 > 0).to(gl.int32)
        pooled = 1 + (ordinal >= has1).to(gl.int32) + (ordinal >= has2).to(gl.int32)
        level = (ordinal >= 0).to(gl.int32) * pooled
    low = gl.load(bounds + level)
    high = gl.load(bounds + level + 1)
    width = 1 << level
    size = BLOCK >> level
    stop = gl.where(level == 0, low + step + 1, high - ((high - low - 1) >> level << level))
    first = gl.maximum(stop - width, low)
    entry = first + lane // size
    key_block = gl.load(ids + entry, mask=entry < stop, other=0)
    tokens = gl.load(valid + key_block, mask=entry < stop, other=0)
    members = gl.minimum(tokens - lane % size * width, width)
    bias = gl.log2(gl.maximum(members, 1).to(gl.float32))
    return gl.where(members > 0, bias, float("-inf"))


@gluon.jit
def consume(
    q_buffers, q_full, ring, out, lse, slots, valid, bounds, ids, order, block, batch, head,
    scale, seq_len, heads, blocks, partial,
    half: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 query rows: online softmax in base 2 over all tiles, then the scatter."""
    k_buffers, v_buffers, k_full, k_empty, v_full, v_empty = ring
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])  # noqa: E741
    P: gl.constexpr = gl.DotOperandLayout(0, O, 2)
    S_ROW: gl.constexpr = gl.SliceLayout(1, S)
    O_ROW: gl.constexpr = gl.SliceLayout(1, O)
    dtype: gl.constexpr = out.dtype.element_ty

    masked, n0, n1, n2, n3 = tile_counts(bounds, partial, LEVELS)
    tiles = n0 + n1 + n2 + n3
    peeled = masked
    if LEVELS > 1:
        peeled += gl.minimum(n1, 1) + gl.minimum(n2, 1) + gl.minimum(n3, 1)
    end0 = n0 - masked + peeled
    end1 = end0 + gl.maximum(n1 - 1, 0)
    end2 = end1 + gl.maximum(n2 - 1, 0)

    acc = gl.zeros([HALF, D], gl.float32, O)
    peak = gl.full([HALF], float("-inf"), gl.float32, S_ROW)
    total = gl.zeros([HALF], gl.float32, S_ROW)
    zeros = gl.zeros([HALF, BLOCK], gl.float32, S)
    if tiles > 0:
        mbarrier.wait(q_full.index(half), 0)
    query = q_buffers.index(half)

    for step in range(peeled):
        stage = step % STAGES
        phase = (step // STAGES) & 1
        mbarrier.wait(k_full.index(stage), phase)
        key = k_buffers.index(stage).permute((1, 0))
        token = warpgroup_mma(query, key, zeros, use_acc=False, is_async=True)
        logits = warpgroup_mma_wait(0, deps=[token])
        mbarrier.arrive(k_empty.index(stage), count=1)
        bias = masked_bias(step, masked, n1, n2, bounds, ids, valid, gl.SliceLayout(0, S), LEVELS)
        logits = logits * scale + bias[None, :]
        new_peak = gl.maximum(peak, gl.max(logits, axis=1))
        weights = gl.exp2(logits - new_peak[:, None])
        shrink = gl.exp2(peak - new_peak)
        total = total * shrink + gl.sum(weights, axis=1)
        peak = new_peak
        acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
        mbarrier.wait(v_full.index(stage), phase)
        value = v_buffers.index(stage)
        token = warpgroup_mma(gl.convert_layout(weights.to(dtype), P), value, acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[token])
        mbarrier.arrive(v_empty.index(stage), count=1)

    if tiles > peeled:
        # The first tile alone, then each tile's logits beside the product of the tile before.
        stage = peeled % STAGES
        mbarrier.wait(k_full.index(stage), (peeled // STAGES) & 1)
        key = k_buffers.index(stage).permute((1, 0))
        token = warpgroup_mma(query, key, zeros, use_acc=False, is_async=True)
        logits = warpgroup_mma_wait(0, deps=[token])
        mbarrier.arrive(k_empty.index(stage), count=1)
        level = (
            (peeled >= end0).to(gl.int32) + (peeled >= end1).to(gl.int32)
            + (peeled >= end2).to(gl.int32)
        ).to(gl.float32)  # fmt: skip
        new_peak = gl.maximum(peak, gl.max(logits, axis=1) * scale + level)
        weights = gl.exp2(logits * scale - (new_peak - level)[:, None])
        shrink = gl.exp2(peak - new_peak)
        total = total * shrink + gl.sum(weights, axis=1)
        peak = new_peak
        acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
        packed = gl.convert_layout(weights.to(dtype), P)
        mbarrier.wait(
            k_full.index((peeled + 1) % STAGES),
            ((peeled + 1) // STAGES) & 1,
            pred=peeled + 1 < tiles,
        )
        for step in range(peeled + 1, tiles):
            stage = step % STAGES
            before = (step - 1) % STAGES
            key = k_buffers.index(stage).permute((1, 0))
            s_token = warpgroup_mma(query, key, zeros, use_acc=False, is_async=True)
            mbarrier.wait(v_full.index(before), ((step - 1) // STAGES) & 1)
            o_token = warpgroup_mma(packed, v_buffers.index(before), acc, is_async=True)
            logits = warpgroup_mma_wait(1, deps=[s_token])
            mbarrier.arrive(k_empty.index(stage), count=1)
            level = (
                (step >= end0).to(gl.int32) + (step >= end1).to(gl.int32)
                + (step >= end2).to(gl.int32)
            ).to(gl.float32)  # fmt: skip
            new_peak = gl.maximum(peak, gl.max(logits, axis=1) * scale + level)
            weights = gl.exp2(logits * scale - (new_peak - level)[:, None])
            shrink = gl.exp2(peak - new_peak)
            total = total * shrink + gl.sum(weights, axis=1)
            peak = new_peak
            # This wait, before that for the product, keeps the exponentials in front of both.
            mbarrier.wait(
                k_full.index((step + 1) % STAGES),
                ((step + 1) // STAGES) & 1,
                pred=step + 1 < tiles,
            )
            acc = warpgroup_mma_wait(0, deps=[o_token])
            mbarrier.arrive(v_empty.index(before), count=1)
            acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
            packed = gl.convert_layout(weights.to(dtype), P)
        last = (tiles - 1) % STAGES
        mbarrier.wait(v_full.index(last), ((tiles - 1) // STAGES) & 1)
        token = warpgroup_mma(packed, v_buffers.index(last), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[token])

    STORE: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    STORE_ROW: gl.constexpr = gl.SliceLayout(1, STORE)
    filled_total = gl.where(total == 0.0, 1.0, total)
    result = acc / gl.convert_layout(filled_total, O_ROW)[:, None]
    result = gl.convert_layout(result.to(dtype), STORE)
    first_slot = slots + (order.to(gl.int64) * blocks + block) * BLOCK + half * HALF
    token = gl.load(first_slot + gl.arange(0, HALF, layout=STORE_ROW))
    target = (batch.to(gl.int64) * seq_len + token) * heads + head
    channel = gl.arange(0, D, layout=gl.SliceLayout(0, STORE))
    gl.store(out + target[:, None] * D + channel[None, :], result, mask=(token >= 0)[:, None])
    natural = (peak + gl.log2(filled_total)) * LN2
    token = gl.load(first_slot + gl.arange(0, HALF, layout=S_ROW))
    base = lse + (batch * heads + head).to(gl.int64) * seq_len
    gl.store(base + token, natural, mask=token >= 0)


@gluon.jit
def attend_kernel(
    q, k0, v0, k1, v1, k2, v2, k3, v3, out, lse, slots, valid, offsets, ids, row_order,
    head_rows, scale, seq_len, heads, blocks, partial,
    D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr,
):  # fmt: skip
    """Attention of one (query block, batch * head).

    q, k0 and v0 are tensor descriptors of packed rows, with boxes of 64, 128 and 128 rows; k1 to v3
    of pooled rows, with boxes of 128 >> level rows by 64 channels, unused with LEVELS of 1. `scale`
    includes log2(e); `partial` is the number of partial blocks of the grid.
    """
    block = gl.program_id(0)
    batch_head = gl.program_id(1)
    head = batch_head % heads
    batch = batch_head // heads
    row = gl.load(head_rows + head)
    order = gl.load(row_order + row)
    bounds = offsets + (row.to(gl.int64) * blocks + block) * 5
    dtype: gl.constexpr = q.dtype
    SPAN: gl.constexpr = BLOCK * D * 2

    q_buffers = gl.allocate_shared_memory(dtype, [2, HALF, D], q.layout)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK, D], k0.layout)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK, D], v0.layout)
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    for half in gl.static_range(2):
        mbarrier.init(q_full.index(half), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(k_empty.index(stage), count=2)
        mbarrier.init(v_empty.index(stage), count=2)
    ring = (k_buffers, v_buffers, k_full, k_empty, v_full, v_empty)
    sources = (q, k0, v0, k1, v1, k2, v2, k3, v3)
    gl.warp_specialize(
        [
            (
                consume,
                (
                    q_buffers, q_full, ring, out, lse, slots, valid, bounds, ids, order, block,
                    batch, head, scale, seq_len, heads, blocks, partial, gl.constexpr(0), D, STAGES,
                    LEVELS,
                ),
            ),
            (
                consume,
                (
                    q_buffers, q_full, ring, out, lse, slots, valid, bounds, ids, order, block,
                    batch, head, scale, seq_len, heads, blocks, partial, gl.constexpr(1), D, STAGES,
                    LEVELS,
                ),
            ),
            (
                produce,
                (
                    sources, q_buffers, q_full, ring, bounds, ids, batch_head, block, blocks,
                    partial, D, STAGES, LEVELS, SPAN,
                ),
            ),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip

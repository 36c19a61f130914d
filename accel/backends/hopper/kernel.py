"""Block-sparse multi-level attention for Hopper, warp-specialised in Gluon.

A persistent program takes work items: a query block of a head each. A producer warp copies
queries, keys and values by TMA into a ring of buffers. Two warpgroups compute 64 query rows each
and overlap the softmax of a tile with the matrix product of the tile before.

Producer and consumers take the tiles of an item in the same sequence: first the masked tiles (the
partial blocks of level 0, then the first tile of each pooled level that needs a mask), then the
remaining tiles of levels 0 to 3. A level-h tile gathers the pooled rows of 2**h blocks, 128 >> h
rows each, so every tile has 128 keys. Each of them stands for 2**h keys, which adds h to the base-2
logits of the whole tile.

A step of the ring holds the keys of a tile and the values of the tile before, which the consumers
need together. One barrier says that a step is filled, another that it is free. The last values of
an item share a step with the first keys of the next item, which therefore arrive during the
epilogue.

A work item is 16 numbers: head, query block, the five offsets of its lists, row of `slots`, and the
masked tiles; see `work.work_items`. For all other layouts see the Triton backend's kernel.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ajour.backends.hopper.copies import BLOCK, HALF, ITEM, produce, tile_counts

LN2 = gl.constexpr(0.6931471805599453)


@gluon.jit
def masked_bias(word, LAYOUT: gl.constexpr, LEVELS: gl.constexpr):
    """Base-2 logit bias (128,) of the keys of a tile; -inf where there is no key.

    `word` describes the tile, see `work.masked_tiles`; it may need no mask.
    """
    lane = gl.arange(0, BLOCK, layout=LAYOUT)
    tokens = word >> 6
    if LEVELS == 1:
        bias = gl.where(lane < tokens, 0.0, float("-inf"))
    else:
        # Only the first of a list's entries can be a partial block.
        level = word & 3
        width = 1 << level
        size = BLOCK >> level
        members = gl.minimum(tokens - lane * width, width)
        present = (word >> 2 & 15) * size
        members = gl.where(lane < size, members, gl.where(lane < present, width, 0))
        bias = gl.log2(gl.maximum(members, 1).to(gl.float32))
        bias = gl.where(members > 0, bias, float("-inf"))
    return bias


@gluon.jit
def masked_logits(
    query, keys, empty, scale, word, zeros, S: gl.constexpr, LEVELS: gl.constexpr
):  # fmt: skip
    """Masked base-2 logits (64, 128) of one of the first tiles of an item; frees its step."""
    token = warpgroup_mma(query, keys.permute((1, 0)), zeros, use_acc=False, is_async=True)
    bias = masked_bias(word, gl.SliceLayout(0, S), LEVELS)
    logits = warpgroup_mma_wait(0, deps=[token])
    mbarrier.arrive(empty, count=1)
    return logits * scale + bias[None, :]


@gluon.jit
def thread_sums(weights):
    """Sums of weights (64, 128) over the keys that a thread holds: (64, 4)."""
    return gl.sum(gl.sum(weights.reshape([64, 16, 4, 2]), axis=3), axis=1)


@gluon.jit
def soften(logits, peak, sums, scale, level):
    """One step of the online softmax in base 2 over logits (64, 128), times `scale` plus `level`.

    Returns the weights relative to the new peak, the new peak, the new sums, and the factor that
    makes earlier results relative to the new peak.
    """
    new_peak = gl.maximum(peak, gl.max(logits, axis=1) * scale + level)
    weights = gl.exp2(logits * scale - (new_peak - level)[:, None])
    shrink = gl.exp2(peak - new_peak)
    ROW: gl.constexpr = gl.SliceLayout(1, sums.type.layout)
    sums = sums * gl.convert_layout(shrink, ROW)[:, None] + thread_sums(weights)
    return weights, new_peak, sums, shrink


@gluon.jit
def consume(
    q_buffers, q_full, q_empty, ring, out, lse, slots, work, items, total, scale, seq_len, heads,
    blocks,
    half: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 query rows: online softmax over all tiles, then the scatter."""
    k_buffers, v_buffers, full, empty = ring
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])  # noqa: E741
    P: gl.constexpr = gl.DotOperandLayout(0, O, 2)
    S_ROW: gl.constexpr = gl.SliceLayout(1, S)
    O_ROW: gl.constexpr = gl.SliceLayout(1, O)
    STORE: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    STORE_ROW: gl.constexpr = gl.SliceLayout(1, STORE)
    dtype: gl.constexpr = out.dtype.element_ty

    query = q_buffers.index(half)
    zeros = gl.zeros([HALF, BLOCK], gl.float32, S)
    start = 0
    filled = 0
    for index in range(gl.program_id(0), total, gl.num_programs(0)):
        item = work + index % items * ITEM
        head = gl.load(item)
        block = gl.load(item + 1)
        order = gl.load(item + 7)
        batch = index // items
        word = gl.load(item + 9)
        masked, counts = tile_counts(item, LEVELS)
        steps = counts[0] + counts[1] + counts[2] + counts[3]
        last = start + steps - 1
        peeled = masked[0] + masked[1] + masked[2] + masked[3]
        end0 = start + peeled + counts[0] - masked[0]
        end1 = end0 + counts[1] - masked[1]
        end2 = end1 + counts[2] - masked[2]

        acc = gl.zeros([HALF, D], gl.float32, O)
        peak = gl.full([HALF], float("-inf"), gl.float32, S_ROW)
        sums = thread_sums(zeros)
        if steps > 0:
            mbarrier.wait(q_full.index(half), filled & 1)
            filled += 1
            # All masked tiles but the last: logits, then their product with the values.
            first = start + gl.maximum(peeled, 1) - 1
            mbarrier.wait(full.index(start % STAGES), (start // STAGES) & 1)
            for step in range(start, first):
                stage = step % STAGES
                following = gl.load(item + 10 + step - start)
                logits = masked_logits(
                    query, k_buffers.index(stage), empty.index(stage), scale, word, zeros, S,
                    LEVELS,
                )  # fmt: skip
                word = following
                weights, peak, sums, shrink = soften(logits, peak, sums, 1.0, 0.0)
                mbarrier.wait(full.index((step + 1) % STAGES), ((step + 1) // STAGES) & 1)
                acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
                packed = gl.convert_layout(weights.to(dtype), P)
                token = warpgroup_mma(packed, v_buffers.index(stage), acc, is_async=True)
                acc = warpgroup_mma_wait(0, deps=[token])
            # The last masked tile, or the first tile if none is masked: it begins the overlap.
            logits = masked_logits(
                query, k_buffers.index(first % STAGES), empty.index(first % STAGES), scale, word,
                zeros, S, LEVELS,
            )  # fmt: skip
            weights, peak, sums, shrink = soften(logits, peak, sums, 1.0, 0.0)
            acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
            packed = gl.convert_layout(weights.to(dtype), P)
            mbarrier.wait(full.index((first + 1) % STAGES), ((first + 1) // STAGES) & 1)
            # The logits of each tile overlap the product of the tile before.
            for step in range(first + 1, last + 1):
                stage = step % STAGES
                key = k_buffers.index(stage).permute((1, 0))
                s_token = warpgroup_mma(query, key, zeros, use_acc=False, is_async=True)
                value = v_buffers.index((step - 1) % STAGES)
                o_token = warpgroup_mma(packed, value, acc, is_async=True)
                logits = warpgroup_mma_wait(1, deps=[s_token])
                level = 0.0
                if LEVELS > 1:
                    level = (
                        (step >= end0).to(gl.int32) + (step >= end1).to(gl.int32)
                        + (step >= end2).to(gl.int32)
                    ).to(gl.float32)  # fmt: skip
                weights, peak, sums, shrink = soften(logits, peak, sums, scale, level)
                # This wait, before that for the product, keeps the exponentials in front of both.
                mbarrier.wait(full.index((step + 1) % STAGES), ((step + 1) // STAGES) & 1)
                acc = warpgroup_mma_wait(0, deps=[o_token])
                mbarrier.arrive(empty.index(stage), count=1)
                acc = acc * gl.convert_layout(shrink, O_ROW)[:, None]
                packed = gl.convert_layout(weights.to(dtype), P)
            mbarrier.arrive(q_empty.index(half), count=1)
            token = warpgroup_mma(packed, v_buffers.index(last % STAGES), acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=[token])
            start += steps

        total_weight = gl.convert_layout(gl.sum(sums, axis=1), S_ROW)
        total_weight = gl.where(total_weight == 0.0, 1.0, total_weight)
        result = acc / gl.convert_layout(total_weight, O_ROW)[:, None]
        result = gl.convert_layout(result.to(dtype), STORE)
        first_slot = slots + (order.to(gl.int64) * blocks + block) * BLOCK + half * HALF
        token = gl.load(first_slot + gl.arange(0, HALF, layout=STORE_ROW))
        target = (batch.to(gl.int64) * seq_len + token) * heads + head
        channel = gl.arange(0, D, layout=gl.SliceLayout(0, STORE))
        gl.store(out + target[:, None] * D + channel[None, :], result, mask=(token >= 0)[:, None])
        natural = (peak + gl.log2(total_weight)) * LN2
        token = gl.load(first_slot + gl.arange(0, HALF, layout=S_ROW))
        base = lse + (batch * heads + head).to(gl.int64) * seq_len
        gl.store(base + token, natural, mask=token >= 0)


@gluon.jit
def attend_kernel(
    q, k0, v0, k1, v1, k2, v2, k3, v3, out, lse, slots, work, ids, scale, items, total, seq_len,
    heads, blocks,
    D: gl.constexpr, STAGES: gl.constexpr, LEVELS: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """Attention of the work items program_id, program_id + num_programs, ... below `total`.

    q, k0 and v0 are tensor descriptors of packed rows, with boxes of 64, 128 and 128 rows. k1 to v3
    are tensor descriptors of pooled rows, with boxes of 128 >> level rows by 64 channels; they are
    not used if LEVELS is 1. There are `items` work items for each batch entry, `total` in all.
    `scale` includes log2(e).
    """
    dtype: gl.constexpr = q.dtype
    q_buffers = gl.allocate_shared_memory(dtype, [2, HALF, D], q.layout)
    k_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK, D], k0.layout)
    v_buffers = gl.allocate_shared_memory(dtype, [STAGES, BLOCK, D], v0.layout)
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    for half in gl.static_range(2):
        mbarrier.init(q_full.index(half), count=1)
        mbarrier.init(q_empty.index(half), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=2)
        mbarrier.init(empty.index(stage), count=2)
    ring = (k_buffers, v_buffers, full, empty)
    sources = (q, k0, v0, k1, v1, k2, v2, k3, v3)
    gl.warp_specialize(
        [
            (
                consume,
                (
                    q_buffers, q_full, q_empty, ring, out, lse, slots, work, items, total, scale,
                    seq_len, heads, blocks, gl.constexpr(0), D, STAGES, LEVELS,
                ),
            ),
            (
                consume,
                (
                    q_buffers, q_full, q_empty, ring, out, lse, slots, work, items, total, scale,
                    seq_len, heads, blocks, gl.constexpr(1), D, STAGES, LEVELS,
                ),
            ),
            (
                produce,
                (
                    sources, q_buffers, q_full, q_empty, ring, work, ids, items, total, heads,
                    blocks, D, STAGES, LEVELS,
                ),
            ),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip

"""The block-sparse multi-level attention kernel.

A program computes a query block of a head. It takes the lists of its row level by level, with an
online softmax in base 2. A level-h tile gathers the pooled rows of 2**h listed blocks, so every
tile has 128 keys and costs the same. Masked tiles come first in every list, so the long loop of
level 0 has no mask.

Layouts: q, k, v are packed to rows of DP channels, (batch * heads * blocks * BLOCK, DP). Pooled
keys and values are (batch * heads, blocks * 112, DP), one level after the other.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(base, rows, DP: tl.constexpr):
    """Rows of a packed tensor: (len(rows), DP)."""
    channel = tl.arange(0, DP)
    return tl.load(base + rows[:, None].to(tl.int64) * DP + channel[None, :])


@triton.jit
def halves(x):
    """The first and the second half of the channels of (rows, channels)."""
    rows: tl.constexpr = x.shape[0]
    channels: tl.constexpr = x.shape[1]
    return tl.split(tl.permute(tl.reshape(x, (rows, 2, channels // 2)), (0, 2, 1)))


@triton.jit
def products(q, k, PRECISION: tl.constexpr):
    """Products of all queries and keys; fp32 adds 32 channels at a time to round less."""
    if PRECISION == "ieee" and q.shape[1] > 32:
        q_first, q_second = halves(q)
        k_first, k_second = halves(k)
        return products(q_first, k_first, PRECISION) + products(q_second, k_second, PRECISION)
    else:
        return tl.dot(q, tl.trans(k), input_precision=PRECISION)


@triton.jit
def accumulate(
    q, k, v, bias, acc, acc_rest, peak, total, total_rest, scale, PRECISION: tl.constexpr
):
    """One step of the online softmax over a tile of keys; `bias` is in base 2, per key, or None.

    Without a bias, the scale is applied together with the peak, in one operation per logit.

    In fp32 both sums are compensated (Kahan), because a row may add a thousand tiles: the rests
    keep the rounding errors of the additions.
    """
    logits = products(q, k, PRECISION)
    if bias is not None:
        logits = logits * scale + bias
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))
        weights = tl.exp2(logits - new_peak[:, None])
    else:
        new_peak = tl.maximum(peak, tl.max(logits, axis=1) * scale)
        weights = tl.exp2(logits * scale - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    if PRECISION == "ieee":
        total *= shrink
        more = tl.sum(weights, axis=1) - total_rest * shrink
        new_total = total + more
        total_rest = (new_total - total) - more
        total = new_total
        acc *= shrink[:, None]
        part = tl.dot(weights, v, input_precision=PRECISION) - acc_rest * shrink[:, None]
        new_acc = acc + part
        acc_rest = (new_acc - acc) - part
        acc = new_acc
    else:
        total = total * shrink + tl.sum(weights, axis=1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, acc_rest, new_peak, total, total_rest


@triton.jit
def walk_pooled(
    query, pooled_k, pooled_v, valid, ids, begin, end, first_row, blocks, acc, acc_rest, peak,
    total, total_rest, scale,
    DP: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, LEVEL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The tiles of a pooled level: ids[begin:end], 2**LEVEL blocks to a tile.

    Only the first tile can have missing ids (it takes the remainder) or hold the partial block.
    """
    width: tl.constexpr = 1 << LEVEL
    group: tl.constexpr = BLOCK >> LEVEL
    first_row += blocks * (BLOCK - 2 * group)
    parts: tl.constexpr = BLOCK // TILE
    tiles = (end - begin + width - 1) // width
    for step in tl.range(0, tiles * parts, num_stages=1):
        part = step % parts
        stop = end - (tiles - 1 - step // parts) * width
        first = tl.maximum(stop - width, begin)
        slot = part * TILE + tl.arange(0, TILE)
        entry = first + slot // group
        if first + part * TILE // group < stop:
            key_block = tl.load(ids + entry, mask=entry < stop, other=0)
            size = tl.load(valid + key_block, mask=entry < stop, other=0)
            members = tl.minimum(size - slot % group * width, width)
            bias = tl.log2(tl.maximum(members, 1).to(tl.float32))
            bias = tl.where(members > 0, bias, float("-inf"))
            rows = key_block * group + slot % group
            key = load_rows(pooled_k + first_row * DP, rows, DP)
            value = load_rows(pooled_v + first_row * DP, rows, DP)
            acc, acc_rest, peak, total, total_rest = accumulate(
                query, key, value, bias[None, :], acc, acc_rest, peak, total, total_rest, scale,
                PRECISION,
            )  # fmt: skip
    return acc, acc_rest, peak, total, total_rest


@triton.jit
def attend_kernel(
    q, k, v, k_source, v_source, pooled_k, pooled_v, out, lse, slots, valid, offsets, ids,
    row_order, head_rows, scale, seq_len, heads, blocks, partial,
    D: tl.constexpr, DP: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    LEVELS: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of one (query block, batch * head).

    `k_source` and `v_source` are tensor descriptors of k and v if DESCRIPTORS, else k and v.
    `scale` includes log2(e). `partial` is the number of partial blocks of the grid. TILE is the
    number of keys computed at a time, a divisor of BLOCK.
    """
    block = tl.program_id(0)
    batch_head = tl.program_id(1)
    head = batch_head % heads
    batch = batch_head // heads
    row = tl.load(head_rows + head)
    lane = tl.arange(0, BLOCK)
    key_lane = tl.arange(0, TILE)
    first_row = batch_head.to(tl.int64) * blocks * BLOCK
    query = load_rows(q + first_row * DP, block * BLOCK + lane, DP)

    acc = tl.zeros((BLOCK, DP), dtype=tl.float32)
    peak = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    acc_rest, total_rest = acc, total
    bounds = offsets + (row.to(tl.int64) * blocks + block) * 5

    parts: tl.constexpr = BLOCK // TILE
    begin = tl.load(bounds)
    end = tl.load(bounds + 1)
    masked_end = tl.minimum(begin + partial, end)
    for step in tl.range(0, (masked_end - begin) * parts, num_stages=1):
        key_block = tl.load(ids + begin + step // parts)
        size = tl.load(valid + key_block)
        lane_in_block = step % parts * TILE + key_lane
        if step % parts * TILE < size:
            rows = key_block * BLOCK + lane_in_block
            bias = tl.where(lane_in_block < size, 0.0, float("-inf"))
            key = load_rows(k + first_row * DP, rows, DP)
            value = load_rows(v + first_row * DP, rows, DP)
            acc, acc_rest, peak, total, total_rest = accumulate(
                query, key, value, bias[None, :], acc, acc_rest, peak, total, total_rest, scale,
                PRECISION,
            )  # fmt: skip
    for step in tl.range(0, (end - masked_end) * parts, num_stages=STAGES):
        key_block = tl.load(ids + masked_end + step // parts)
        first_key = key_block * BLOCK + step % parts * TILE
        if DESCRIPTORS:
            start = batch_head * blocks * BLOCK + first_key
            key = k_source.load([start, 0])
            value = v_source.load([start, 0])
        else:
            key = load_rows(k_source + first_row * DP, first_key + key_lane, DP)
            value = load_rows(v_source + first_row * DP, first_key + key_lane, DP)
        acc, acc_rest, peak, total, total_rest = accumulate(
            query, key, value, None, acc, acc_rest, peak, total, total_rest, scale, PRECISION
        )

    for level in tl.static_range(1, LEVELS):
        acc, acc_rest, peak, total, total_rest = walk_pooled(
            query, pooled_k, pooled_v, valid, ids, tl.load(bounds + level),
            tl.load(bounds + level + 1), batch_head.to(tl.int64) * blocks * (BLOCK - BLOCK // 8),
            blocks, acc, acc_rest, peak, total, total_rest, scale, DP, BLOCK, TILE, level,
            PRECISION,
        )  # fmt: skip

    empty = total == 0.0
    result = acc / tl.where(empty, 1.0, total)[:, None]
    natural = (peak + tl.log2(tl.where(empty, 1.0, total))) * 0.6931471805599453
    order = tl.load(row_order + row)
    token = tl.load(slots + (order.to(tl.int64) * blocks + block) * BLOCK + lane)
    filled = token >= 0
    target = (batch.to(tl.int64) * seq_len + token) * heads + head
    channel = tl.arange(0, DP)
    tl.store(
        out + target[:, None] * D + channel[None, :],
        result.to(out.dtype.element_ty),
        mask=filled[:, None] & (channel < D)[None, :],
    )
    tl.store(lse + batch_head.to(tl.int64) * seq_len + token, natural, mask=filled)

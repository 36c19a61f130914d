"""Share of sampled queries' attention that goes to each key block, by a Triton kernel.

A program takes the samples of a few query blocks of one head. The first pass over the keys finds
the peak and sum of each query, the second sums its shares block by block. No logit reaches memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from ajour.backends.packing import padded_channels
from ajour.grid import BLOCK

ROWS = 128
"""Queries of a program; more if more are sampled from a block."""


def shares_of_blocks(
    q: torch.Tensor, k: torch.Tensor, tokens: torch.Tensor, queries: torch.Tensor, scale: float
) -> torch.Tensor:
    """Share of each query block's attention that goes to each key block.

    Args:
        q: (batch, tokens, heads, head_dim).
        k: same shape.
        tokens: int64 (N, 128), the token in each slot of each key block, -1 in empty slots.
        queries: int64 (N, samples), the tokens sampled from each query block; samples is a power
            of two.
        scale: factor on the logits.

    Returns:
        float32 (heads, N, N), the mean over the samples and the batch; rows sum to 1.
    """
    batch, _, heads, dim = q.shape
    q, k = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k))
    blocks, samples = queries.shape
    mass = torch.empty(batch, heads, blocks, blocks, dtype=torch.float32, device=q.device)
    exact = q.dtype == torch.float32
    fixed = constants(dim, samples, exact)
    mass_kernel[(triton.cdiv(blocks * samples, fixed["ROWS"]), batch * heads)](
        q, k, tokens.int(), queries.int(), mass, scale * math.log2(math.e), heads, blocks,
        *q.stride()[:3], *k.stride()[:3],
        **fixed, **compile_options(fixed["ROWS"], exact),
    )  # fmt: skip
    return mass[0] if batch == 1 else mass.mean(dim=0)


def constants(head_dim: int, samples: int, exact: bool) -> dict[str, Any]:
    """The kernel's compile-time arguments; `exact` for fp32."""
    channels = padded_channels(head_dim)
    rows = ROWS // 2 if exact or channels > 128 else ROWS  # more would not fit
    return {
        "D": head_dim,
        "DP": channels,
        "BLOCK": BLOCK,
        "TILE": 16 if exact else BLOCK,  # more of fp32 would not stay in registers
        "ROWS": max(rows, samples),
        "SAMPLES": samples,
        "PRECISION": "ieee" if exact else "tf32",
    }


def compile_options(rows: int, exact: bool) -> dict[str, Any]:
    """How the kernel is compiled for programs of so many queries; `exact` for fp32."""
    return {"num_warps": rows // 16, "num_stages": 1 if exact else 2, "enable_fp_fusion": True}


@triton.jit
def block_logits(
    query, keys, tokens, first, stride, scale,
    D: tl.constexpr, DP: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Base-2 logits (ROWS, TILE) of the keys of slots first, first + 1, ...; -inf where empty."""
    token = tl.load(tokens + first + tl.arange(0, TILE))
    channel = tl.arange(0, DP)
    place = tl.maximum(token, 0).to(tl.int64) * stride
    key = tl.load(keys + place[:, None] + channel[None, :], mask=(channel < D)[None, :], other=0.0)
    logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    return tl.where((token >= 0)[None, :], logits, float("-inf"))


@triton.jit
def mass_kernel(
    q, k, tokens, chosen, mass, scale, heads, blocks, q_batch, q_token, q_head, k_batch, k_token,
    k_head,
    D: tl.constexpr, DP: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
    SAMPLES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Shares of ROWS sampled queries, SAMPLES to a query block. `scale` includes log2(e)."""
    batch_head = tl.program_id(1)
    batch = (batch_head // heads).to(tl.int64)
    head = (batch_head % heads).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.load(chosen + row, mask=row < blocks * SAMPLES, other=0).to(tl.int64)
    channel = tl.arange(0, DP)
    places = q + batch * q_batch + head * q_head + token[:, None] * q_token + channel[None, :]
    query = tl.load(places, mask=(channel < D)[None, :], other=0.0)
    keys = k + batch * k_batch + head * k_head

    peak = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for tile in range(blocks * (BLOCK // TILE)):
        logits = block_logits(
            query, keys, tokens, tile * TILE, k_token, scale, D, DP, TILE, PRECISION
        )
        # A block's first slots are filled, so the first tile gives a finite peak.
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))
        total = total * tl.exp2(peak - new_peak) + tl.sum(tl.exp2(logits - new_peak[:, None]), 1)
        peak = new_peak

    group: tl.constexpr = ROWS // SAMPLES
    block = tl.program_id(0) * group + tl.arange(0, group)
    target = mass + (batch_head.to(tl.int64) * blocks + block) * blocks
    part = tl.zeros((ROWS,), dtype=tl.float32)
    for tile in range(blocks * (BLOCK // TILE)):
        logits = block_logits(
            query, keys, tokens, tile * TILE, k_token, scale, D, DP, TILE, PRECISION
        )
        part += tl.sum(tl.exp2(logits - peak[:, None]), axis=1)
        if tile % (BLOCK // TILE) == BLOCK // TILE - 1:
            share = tl.sum(tl.reshape(part / total, (group, SAMPLES)), axis=1) / SAMPLES
            tl.store(target + tile // (BLOCK // TILE), share, mask=block < blocks)
            part = tl.zeros((ROWS,), dtype=tl.float32)

"""Encoded training clips of one size: a store that fresh scenes keep flowing into."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from tools.mini import captions, model, scenes

if TYPE_CHECKING:
    import random

    from diffusers import AutoencoderKLWan
    from transformers import PreTrainedTokenizerFast

CAPTIONS_PER_SCENE = 4
TEXT_LENGTH = 64
BATCH_PIXELS = 2**25
"""Pixels of video that are rendered and encoded at once."""

SEEN_DIFFERENCE = 0.06
"""A pixel belongs to a thing where the scene without things differs by more, of a range of 2."""


def tokenize(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenises captions to (N,64) ids and attention mask."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(device), tokens.attention_mask.to(device)


def statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent mean and standard deviation from the VAE's config, each (1,16,1,1,1)."""
    pair = (vae.config.latents_mean, vae.config.latents_std)
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1, 1) for v in pair)
    return mean, std


def latent_cells(covered: torch.Tensor) -> torch.Tensor:
    """Which latent cells a covered pixel falls into.

    Args:
        covered: (B,F,H,W) bool, F % 4 == 1.

    Returns:
        (B,1+(F-1)/4,H/8,W/8) bool: the first frame stands alone, then four frames to a cell.
    """
    spatial = model.SPATIAL_FACTOR
    cells = F.max_pool2d(covered.half(), spatial)
    later = cells[:, 1:]
    if later.shape[1]:
        later = later.unflatten(1, (-1, model.TEMPORAL_FACTOR)).amax(2)
    return torch.cat([cells[:, :1], later], dim=1) > 0


class Clips:
    """Clips of one size, encoded; the oldest are replaced when the store is full.

    Args:
        vae: Trained VAE on the target device.
        tokenizer: Tokenizer of the captions.
        size: (frames, height, width).
        most: Greatest number of clips.
        batch: Clips that are rendered and encoded together; by their pixels if left out.
    """

    def __init__(
        self,
        vae: AutoencoderKLWan,
        tokenizer: PreTrainedTokenizerFast,
        size: tuple[int, int, int],
        most: int,
        batch: int | None = None,
    ) -> None:
        device = next(vae.parameters()).device
        frames, height, width = size
        grid = (1 + (frames - 1) // 4, height // 8, width // 8)
        self.vae, self.tokenizer, self.size = vae, tokenizer, size
        fitting = max(1, min(64, BATCH_PIXELS // (frames * height * width)))
        self.batch = min(most, batch or fitting)
        most -= most % self.batch
        self.latents = torch.empty(most, 16, *grid, dtype=torch.bfloat16, device=device)
        self.things = torch.empty(most, *grid, dtype=torch.bool, device=device)
        text = (most, CAPTIONS_PER_SCENE, TEXT_LENGTH)
        self.ids = torch.empty(text, dtype=torch.int32, device=device)
        self.mask = torch.empty(text, dtype=torch.int32, device=device)
        self.made = 0
        """Clips encoded so far, those replaced included."""

    def __len__(self) -> int:
        return min(self.made, len(self.latents))

    @property
    def tokens(self) -> int:
        """Video tokens of a clip in the transformer."""
        return self.things[0].numel() // 4

    @torch.no_grad()
    def add(self, rng: random.Random) -> None:
        """Renders, encodes and captions a batch of fresh training scenes."""
        device = self.latents.device
        picked = [scenes.sample_scene(rng) for _ in range(self.batch)]
        video = scenes.render(picked, *self.size, device)
        empty = scenes.render([replace(s, things=()) for s in picked], *self.size, device)
        covered = (video - empty).abs_().amax(1) > SEEN_DIFFERENCE
        mean, std = statistics(self.vae, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            moments = model.encode_moments(self.vae, video)
        texts = [captions.caption(s, rng) for s in picked for _ in range(CAPTIONS_PER_SCENE)]
        ids, mask = tokenize(self.tokenizer, texts, device)
        begin = self.made % len(self.latents)
        rows = slice(begin, begin + self.batch)
        self.latents[rows] = (moments[:, :16].float() - mean) / std
        self.things[rows] = latent_cells(covered)
        self.ids[rows] = ids.view(-1, CAPTIONS_PER_SCENE, TEXT_LENGTH)
        self.mask[rows] = mask.view(-1, CAPTIONS_PER_SCENE, TEXT_LENGTH)
        self.made += self.batch

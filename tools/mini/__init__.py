"""A small text-to-video diffusion model: data, training and evaluation."""

"""Weights that accelerate keeps away until their module runs: the result stays the same."""

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.hooks import apply_group_offloading

import ajour
from ajour import Auto
from ajour.pipelines.session import session_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

NAMES = ("Wan", "HunyuanVideo", "Flux2", "Kandinsky5", "ZImage", "MiniMaxH3")


@pytest.mark.parametrize("name", NAMES)
def test_a_plan(name):
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        expected = call(transformer, inputs)
    cpu_offload(transformer, torch.device("cpu"))
    with sparse(transformer, SPARSE, strict=True):
        out = call(transformer, inputs)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def chosen(transformer, inputs):
    """The automatic plan of a run of two steps, and the output of its sparse step."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.5), scheduler=scheduler, backend="cpu", strict=True):
        scheduler.set_timesteps(2)
        for step in range(2):
            out = call(transformer, inputs)
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        assert session_of(transformer).steps[-1].startswith("auto")
        return ajour.current_plan(transformer), out


def in_groups(transformer, folder, kind, disk):
    cpu = torch.device("cpu")
    apply_group_offloading(
        transformer, cpu, cpu, kind, num_blocks_per_group=1,
        offload_to_disk_path=str(folder) if disk else None,
    )  # fmt: skip


WAYS = {
    "model": lambda transformer, _: cpu_offload_with_hook(transformer, torch.device("cpu")),
    "sequential": lambda transformer, _: cpu_offload(transformer, torch.device("cpu")),
    "blocks": lambda transformer, folder: in_groups(transformer, folder, "block_level", False),
    "blocks to disk": lambda transformer, folder: in_groups(transformer, folder, "block_level", 1),
    "leaves": lambda transformer, folder: in_groups(transformer, folder, "leaf_level", False),
    "leaves to disk": lambda transformer, folder: in_groups(transformer, folder, "leaf_level", 1),
}


# safetensors maps files without closing them.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", NAMES)
def test_an_automatic_plan_is_that_of_the_weights_that_run(name, way, tmp_path):
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 1)
    expected, expected_out = chosen(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        expected_sparse = call(transformer, inputs)
    WAYS[way](transformer, tmp_path)
    plan, out = chosen(transformer, inputs)
    assert plan == expected
    torch.testing.assert_close(out, expected_out, rtol=1e-4, atol=1e-4)
    with sparse(transformer, SPARSE, strict=True):
        out = call(transformer, inputs)
    torch.testing.assert_close(out, expected_sparse, rtol=1e-4, atol=1e-4)


def test_a_norm_that_holds_its_weight_only_while_it_runs():
    transformer, inputs = make("Wan"), CASES["Wan"].inputs((3, 7, 9), 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        expected = call(transformer, inputs)
    for block in transformer.blocks:
        norm = block.attn1.norm_q
        kept = norm.weight.data.clone()

        def load(norm, _, kept=kept):
            norm.weight.data.copy_(kept)

        def drop(norm, *_):
            norm.weight.data.zero_()

        norm.weight.data.zero_()
        norm.register_forward_pre_hook(load)
        norm.register_forward_hook(drop)
    with sparse(transformer, SPARSE, strict=True):
        out = call(transformer, inputs)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

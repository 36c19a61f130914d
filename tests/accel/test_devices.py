"""The device that a backend runs on, tested with GPU tensors that exist only in name."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from ajour import TokenGrid, attention
from ajour.backends import backend_reason
from ajour.capture import block_mass
from tests.conftest import random_qkv, random_table

triton = pytest.importorskip("triton")

GRID = TokenGrid(2, 8, 9)
SECOND = torch.device("cuda:1")


@pytest.fixture
def current(monkeypatch):
    """The devices that are made current, innermost last."""
    entered = []

    class Guard:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)

        def __exit__(self, *_):
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", Guard)
    return entered


@pytest.mark.parametrize("device", [torch.device("cpu"), SECOND], ids=str)
def test_a_backend_runs_on_its_tensors_device(current, monkeypatch, device):
    table, seen = random_table(GRID, heads=2, seed=0), []

    def launch(q, *_):
        seen.append((q.device, *current))
        return q, q

    monkeypatch.setattr("ajour.dispatch.load_backend", lambda _: launch)
    monkeypatch.setattr("ajour.dispatch.backend_reason", lambda *_: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k, v = random_qkv(GRID, 2, 16, device=device)
        attention(q, k, v, table.to(device), backend="triton")
    assert seen == [(device,) if device.type == "cpu" else (device, device)]
    assert not current


def test_mass_is_measured_on_its_tensors_device(current, monkeypatch):
    seen = []
    monkeypatch.setattr("ajour.dispatch.backend_reason", lambda *_: None)
    monkeypatch.setattr("ajour.capture.on_device", torch.cuda.device)
    monkeypatch.setattr(
        "ajour.backends.mass.shares_of_blocks", lambda q, *_: seen.append((q.device, *current))
    )
    q, k, _ = random_qkv(GRID, 2, 16)
    block_mass(q, k, GRID, "raster", backend="triton")
    assert seen == [(q.device, q.device)]
    assert not current


def hopper_reason():
    return backend_reason("hopper", torch.device("cuda"), torch.bfloat16, 128)


@pytest.fixture
def hopper(monkeypatch):
    from ajour.backends import triton_version

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    triton_version.cache_clear()
    yield
    triton_version.cache_clear()


def test_triton_is_asked_for_its_version_once(hopper, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", None)
    monkeypatch.setattr(triton, "__version__", "3.5.1+rocm7")
    assert "needs Triton 3.6 or newer, got 3.5.1+rocm7" in hopper_reason()
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    assert "got 3.5.1" in hopper_reason()


def test_amd_is_not_hopper(hopper, monkeypatch):
    from ajour.backends.triton.launch import capability_of

    assert hopper_reason() is None
    assert capability_of(torch.device("cuda")) == 90
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "AMD" in hopper_reason()
    assert capability_of(torch.device("cuda")) == 0

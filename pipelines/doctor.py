"""`ajour doctor`: what can run on this machine, and why not."""

from __future__ import annotations

from dataclasses import dataclass

from ajour.backends import backend_reason
from ajour.names import BACKENDS
from ajour.pipelines.dense_backends import DENSE_BACKENDS, dense_backend_reason
from ajour.pipelines.machine import PACKAGES, device_name, versions


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        subject: what was looked at.
        works: whether it can be used.
        detail: its version, or why it cannot.
    """

    subject: str
    works: bool
    detail: str


def diagnose() -> list[Finding]:
    """Look at packages, devices, backends on each device and of diffusers, the bundled model."""
    import torch

    installed = versions()
    findings = [
        Finding(name, name in installed, installed.get(name, f"not installed (pip install {name})"))
        for name in ("python", *PACKAGES)
    ]
    devices = [torch.device("cpu")]
    findings.append(Finding("cpu", True, f"{torch.get_num_threads()} threads"))
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        devices.append(device)
        major, minor = torch.cuda.get_device_capability(device)
        findings.append(Finding(str(device), True, f"{device_name(device)}, sm_{major}{minor}"))
    if len(devices) == 1:
        findings.append(Finding("gpu", False, "torch sees no CUDA device"))
    for device in devices:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        for backend in BACKENDS:
            reason = backend_reason(backend, device, dtype, 128)
            findings.append(
                Finding(f"backend {backend} on {device}", reason is None, reason or "can run")
            )
    findings += _dense_backends()
    findings.append(_bundled())
    return findings


def _dense_backends() -> list[Finding]:
    findings = []
    for name, what in DENSE_BACKENDS.items():
        reason = dense_backend_reason(name)
        use = f'for dense steps and cross-attention: transformer.set_attention_backend("{name}")'
        findings.append(
            Finding(f"dense backend {name}", reason is None, f"{what}; {reason or use}")
        )
    return findings


def _bundled() -> Finding:
    from ajour.pipelines.bundled import FOLDER

    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    complete = (FOLDER / "model" / "model_index.json").is_file() and (
        FOLDER / "plan.json"
    ).is_file()
    detail = f"{size:.1f} MB in {FOLDER}" if complete else f"incomplete: {FOLDER}; reinstall ajour"
    return Finding("bundled model", complete, detail)

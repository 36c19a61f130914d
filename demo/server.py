"""What all tabs share: the model, the device, the store, and the plan that a user looks at."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ajour.demo.heads import Shown, parse_grid
from ajour.demo.pieces import note
from ajour.grid import TokenGrid
from ajour.pipelines.auto import model_of
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.generate import call_parameters
from ajour.plan import Plan, PlanError

if TYPE_CHECKING:
    from ajour.demo.device import Device
    from ajour.demo.model import Model
    from ajour.demo.run import Runner
    from ajour.demo.store import Result, Store

USUAL_GRID = TokenGrid(5, 8, 8)
"""Where nothing tells a plan's grid."""


@dataclass(frozen=True)
class Site:
    """One server.

    Attributes:
        model: the model.
        device: runs its jobs.
        store: finished runs.
        runner: makes runs.
        example: the stored example, if there is one.
    """

    model: Model
    device: Device
    store: Store
    runner: Runner
    example: Result | None

    def first_plan(self) -> Shown | None:
        """The plan to show when the page opens."""
        if self.example is not None:
            return of_result(self.example, "The plan of the stored example")
        if self.model.plan is not None:
            return shown_of(self.model.plan, "The plan that comes with the model")
        return None

    def state(self) -> str:
        """A line on the model: loading, ready, or why it is not there."""
        name = self.model.name
        if not self.device.ready.is_set():
            return note(f"Loading the {name}. Stored results can be looked at meanwhile.")
        if self.device.error:
            return note(f"The {name} could not be loaded: {self.device.error}", "bad")
        pipe = self.device.pipe
        from ajour.pipelines.machine import device_name

        return note(f"Ready: {name} ({type(pipe).__name__}) on {device_name(pipe.device)}.", "good")

    def read_upload(self, path: str) -> tuple[Shown, str]:
        """An uploaded plan, and a line on whether it fits the model.

        Raises:
            PlanError: if the file is no plan; the message names no path of this machine.
        """
        file = Path(path)
        try:
            plan = Plan.load(file)
        except PlanError as error:
            raise PlanError(str(error).replace(str(file), file.name)) from error
        shown = shown_of(plan, f"Uploaded: {file.name}")
        if self.device.pipe is not None:
            try:
                plan.check_model(**model_of(transformers_of(self.device.pipe)[0]))
            except PlanError as error:
                return shown, note(f"{error}. It can be looked at, but not run.", "bad")
        return shown, note(f"{file.name} is a valid plan.", "good")


def shown_of(plan: Plan, source: str, grid: str | None = None) -> Shown:
    """A plan to look at, on the grid that is given or that its provenance tells."""
    found = parse_grid(grid) or parse_grid(plan.provenance.get("grid")) or USUAL_GRID
    return Shown(plan, source, found)


def of_result(result: Result, source: str) -> Shown:
    """The plan of a run, on its grid and with what it captured."""
    return replace(shown_of(result.plan, source, result.report["grid"]), maps=result.maps)


def download(plan: Plan) -> str:
    """A link that saves a plan."""
    text = json.dumps(plan.to_dict(), indent=1) + "\n"
    data = base64.b64encode(text.encode()).decode()
    return (
        '<a class="aj-button" download="plan.json" '
        f'href="data:application/json;base64,{data}">Download plan.json</a>'
    )


def snippet(model: Model, pipe: Any) -> str:
    """Python that loads the model as the page does and runs the downloaded plan."""
    kind = "DiffusionPipeline" if pipe is None else type(pipe).__name__
    if model.path is None:
        load = "from ajour.pipelines.bundled import load_pipeline\n\npipe = load_pipeline()"
    else:
        name = json.dumps(Path(model.path).name if Path(model.path).exists() else model.path)
        device = model.device or ("cuda" if torch.cuda.is_available() else "cpu")
        load = f"from diffusers import {kind}\n\npipe = {kind}.from_pretrained({name})"
        if device != "cpu":
            load = f'import torch\n{load[:-1]}, dtype=torch.bfloat16).to("{device}")'
    images = pipe is not None and "num_frames" not in call_parameters(pipe)
    result = 'image = pipe("...").images[0]' if images else 'video = pipe("...").frames[0]'
    return (
        f'import ajour\n{load}\najour.enable(pipe, "plan.json")\n'
        f"{result}\nprint(ajour.summary(pipe))\n"
    )

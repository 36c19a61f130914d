"""What all tabs share: the model, the device, the store, uploads, and downloads of a plan."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ajour.demo.heads import ShownPlan
from ajour.demo.render import note, render
from ajour.demo.visitors import Visitors
from ajour.files import parse_json
from ajour.pipelines.auto import model_of
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.generate import call_parameters
from ajour.pipelines.machine import device_name
from ajour.plan import Plan, PlanError

if TYPE_CHECKING:
    from markupsafe import Markup

    from ajour.demo.device import Device
    from ajour.demo.model import Model
    from ajour.demo.run import Runner
    from ajour.demo.store import Result, Store


MOST_BYTES = 2**20
"""Of an uploaded plan: a tenth of it holds a plan of 1,600 heads and 5 assignments."""

MOST_ERROR = 400
"""Characters of the reason why an upload is refused: a message may repeat a text of the plan."""


@dataclass(frozen=True)
class Site:
    """One server; `example` is the stored example, if there is one."""

    model: Model
    device: Device
    store: Store
    runner: Runner
    example: Result | None
    visitors: Visitors = field(default_factory=Visitors)

    @cached_property
    def first_plan(self) -> ShownPlan | None:
        """The plan to show when the page opens."""
        if self.example is not None:
            return ShownPlan.of_result(self.example, "The plan of the stored example")
        if self.model.plan is not None:
            return ShownPlan.of(self.model.plan, "The plan that comes with the model")
        return None

    def completed(self, shown: ShownPlan, before: ShownPlan | None) -> ShownPlan:
        """A plan with the errors and frames that are known: of the plan before it, or stored."""
        return shown.after(before).after(self.first_plan)

    def state(self) -> Markup:
        """Whether the model is loading, ready, or could not be loaded."""
        name, pipe = self.model.name, self.device.pipe
        if not self.device.ready.is_set():
            return note(f"Loading the {name}. You can look at stored results meanwhile.")
        if self.device.error:
            return note(f"The {name} could not be loaded: {self.device.error}", "bad")
        return note(f"Ready: {name} ({type(pipe).__name__}) on {device_name(pipe.device)}.", "good")

    def read_upload(self, name: str, text: str) -> tuple[ShownPlan, Markup]:
        """An uploaded plan, and a note on whether the model can run it.

        Args:
            name: of the file on the visitor's machine; only shown.
            text: its content.

        Raises:
            PlanError: if the text is not a valid plan.
        """
        name = Path(name).name[:80]
        try:
            data = parse_json(text.encode(errors="replace"), MOST_BYTES, "the file")
            plan = Plan.from_dict(data)
        except ValueError as error:  # PlanError is a ValueError
            raise PlanError(f"plan {name!r}: {str(error):.{MOST_ERROR}}") from error
        shown = ShownPlan.of(plan, f"Uploaded: {name}")
        if self.device.pipe is not None:
            try:
                plan.check_model(**model_of(transformers_of(self.device.pipe)[0]))
            except PlanError as error:
                reason = f"{str(error):.{MOST_ERROR}}"
                return shown, note(f"{reason}. You can look at it, but not run it.", "bad")
        return shown, note(f"{name} is a valid plan.", "good")


def download(plan: Plan) -> Markup:
    """A link that saves a plan."""
    text = json.dumps(plan.to_dict(), indent=1) + "\n"
    data = base64.b64encode(text.encode()).decode()
    return render("link", name="plan.json", url=f"data:application/json;base64,{data}")


def snippet(model: Model, pipe: Any) -> str:
    """Python that loads the same model and runs the downloaded plan."""
    path = model.path
    if path is not None and Path(path).exists():
        path = Path(path).name  # no folder of this machine
    return render(
        "snippet", path=path,
        kind="DiffusionPipeline" if pipe is None else type(pipe).__name__,
        device=model.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        images=pipe is not None and "num_frames" not in call_parameters(pipe),
    )  # fmt: skip

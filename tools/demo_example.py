"""Makes the stored example of the demo with the bundled model.

    python -m tools.demo_example

Writes demo/examples/: videos, report, plan, measured maps, the errors of the plan's heads, and how
to colour previews.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.demo.device import DONE, Device
from ajour.demo.errors import measure
from ajour.demo.heads import ShownPlan
from ajour.demo.model import BUNDLED, Model, find_model
from ajour.demo.request import Request, Size
from ajour.demo.run import Runner
from ajour.demo.store import ERRORS, EXAMPLE, Errors, Store
from ajour.pipelines.auto import Auto

if TYPE_CHECKING:
    from ajour.demo.device import Job

MOST_BYTES = 2 * 2**20


def main(argv: list[str] | None = None) -> int:
    """Make the example.

    Returns:
        0, or 1 if the run failed or is too big to be shipped.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="pipeline folder; the bundled model if left out")
    parser.add_argument("--prompt", default=BUNDLED.prompt)
    parser.add_argument("--seed", type=int, default=0)
    usual = Model()  # the page's form has the same defaults
    parser.add_argument("--steps", type=int, default=usual.steps)
    for name, value in usual.sizes[usual.usual_size]._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=EXAMPLE)
    args = parser.parse_args(argv)
    model = find_model(args.model)
    size = Size(args.frames, args.height, args.width)
    request = Request(args.prompt, args.seed, args.steps, size, BUNDLED.guidance)
    device = Device(model.load)
    with TemporaryDirectory() as folder:
        runner = Runner(model, Store(Path(folder)))
        plan = model.plan or Auto()

        def work(pipe: Any, job: Job) -> Path:
            result = runner.run(pipe, job, request, plan)
            shown = measure(pipe, job, ShownPlan.of_result(result, ""), request, model)
            Errors(shown.errors, shown.measured).save(result.folder / ERRORS)
            return result.folder

        job = device.submit("example", work)
        for _ in job.watch():
            pass
        device.close()
        if job.state != DONE:
            print(f"demo_example: {job.error or job.state}", file=sys.stderr)
            return 1
        made = job.result
        if runner.colours is not None:
            runner.colours.save(made / "colours.json")
        total = sum(file.stat().st_size for file in made.iterdir())
        if total > MOST_BYTES:
            print(f"demo_example: {total} bytes are more than {MOST_BYTES}", file=sys.stderr)
            return 1
        shutil.rmtree(args.out, ignore_errors=True)
        shutil.copytree(made, args.out)
        report = json.loads((made / "report.json").read_text())
    print(f"{args.out}: {total} bytes, {report['speedup']:.2f}x, {report['psnr_db']:.1f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

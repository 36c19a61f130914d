"""Makes the stored example of the demo with the bundled model.

    python -m tools.demo_example

Writes demo/examples/: videos, report, plan, measured maps, and how to colour previews.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ajour.demo.device import DONE, Device
from ajour.demo.model import BUNDLED, find_model
from ajour.demo.request import Request, Size
from ajour.demo.run import Runner
from ajour.demo.store import EXAMPLE, Store
from ajour.pipelines.auto import Auto

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
    parser.add_argument("--steps", type=int, default=BUNDLED.steps)
    parser.add_argument("--frames", type=int, default=BUNDLED.frames)
    parser.add_argument("--height", type=int, default=BUNDLED.height)
    parser.add_argument("--width", type=int, default=BUNDLED.width)
    parser.add_argument("--out", type=Path, default=EXAMPLE)
    args = parser.parse_args(argv)
    model = find_model(args.model)
    size = Size(args.frames, args.height, args.width)
    request = Request(args.prompt, args.seed, args.steps, size, BUNDLED.guidance)
    device = Device(model.load)
    with TemporaryDirectory() as folder:
        runner = Runner(model, Store(Path(folder)))
        plan = model.plan or Auto()
        job = device.submit("example", lambda pipe, job: runner.run(pipe, job, request, plan))
        for _ in job.watch():
            pass
        device.close()
        if job.state != DONE:
            print(f"demo_example: {job.error or job.state}", file=sys.stderr)
            return 1
        made = job.result.folder
        if runner.colours is not None:
            runner.colours.save(made / "colours.json")
        total = sum(file.stat().st_size for file in made.iterdir())
        if total > MOST_BYTES:
            print(f"demo_example: {total} bytes are more than {MOST_BYTES}", file=sys.stderr)
            return 1
        shutil.rmtree(args.out, ignore_errors=True)
        shutil.copytree(made, args.out)
    print(f"{args.out}: {total} bytes, {job.result.report['psnr_db']:.1f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

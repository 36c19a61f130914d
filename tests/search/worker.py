"""One process of a distributed search on a tiny pipeline: `worker.py FOLDER KIND`."""

import sys
from pathlib import Path

from ajour.search.workers import Workers
from tests import conftest  # noqa: F401 - sets the threads
from tests.pipelines.conftest import _parts, make_pipe
from tests.search.conftest import TWO_SETTINGS, run_search, settings, two_transformers

if __name__ == "__main__":
    out, two = Path(sys.argv[1]), sys.argv[2] == "two_transformers"
    with Workers.connected() as workers:
        build = make_pipe.__wrapped__(_parts.__wrapped__())
        pipe, asked = (two_transformers(build), TWO_SETTINGS) if two else (build(), settings())
        outcome = run_search(pipe, out / "work", asked, workers=workers)
        outcome.plan.save(out / f"plan-{workers.rank}.json")

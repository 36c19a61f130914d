"""One process of a distributed search on the tiny pipeline; run by test_engine."""

import sys
from pathlib import Path

from ajour.search.workers import Workers
from tests import conftest  # noqa: F401 - sets the threads
from tests.pipelines.conftest import _parts, make_pipe
from tests.search.conftest import run_search, settings

if __name__ == "__main__":
    out = Path(sys.argv[1])
    with Workers.connected() as workers:
        pipe = make_pipe.__wrapped__(_parts.__wrapped__())()
        outcome = run_search(pipe, out / "work", settings(), workers=workers)
        outcome.plan.save(out / f"plan-{workers.rank}.json")

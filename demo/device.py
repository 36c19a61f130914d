"""One device, one line: jobs run one after another in a thread of their own."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.enable import transformers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("ajour")

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"


class Stopped(Exception):
    """Ends a job: it was told to stop."""


class TimeUp(Stopped):
    """Ends a job: its time limit has passed."""


class Refused(RuntimeError):
    """A job was not taken; the message says why."""


class Job:
    """A piece of work for the device, and what is known of it.

    Attributes:
        owner: whose it is; an owner has one job at a time.
        state: `waiting`, `running`, `done`, `failed` or `stopped`.
        news: what the work told last.
        result: what the work returned.
        error: why it failed, for people.

    Args:
        owner: see above.
        work: called with the pipeline and the job.
        seconds: time limit from the start of the work; None for none.
    """

    def __init__(
        self, owner: str, work: Callable[[Any, Job], Any], seconds: float | None = None
    ) -> None:
        self.owner = owner
        self.work = work
        self.seconds = seconds
        self.state = WAITING
        self.news: Any = None
        self.result: Any = None
        self.error = ""
        self.started = 0.0
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._version = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop and has not ended yet."""
        return self._stop.is_set() and not self.over

    def stop(self) -> None:
        """Ask the work to end at its next forward pass."""
        self._stop.set()
        self._touch()

    def check(self) -> None:
        """Called by the work, often.

        Raises:
            Stopped: if the job was told to stop.
            TimeUp: if its time is up.
        """
        if self._stop.is_set():
            raise Stopped("stopped")
        if self.seconds is not None and time.monotonic() - self.started > self.seconds:
            raise TimeUp("the time is up")

    def tell(self, news: Any) -> None:
        """Called by the work: replace what is known of it."""
        self.news = news
        self._touch()

    def watch(self, every: float = 0.25) -> Iterator[Job]:
        """The job itself after each change, and once more when it is over.

        Args:
            every: least seconds between two changes that are shown; what lies between is left out.
        """
        seen = -1
        while True:
            with self._changed:
                if self._version == seen:
                    self._changed.wait(timeout=5.0)
                seen, over = self._version, self.over
            yield self
            if over:
                return
            time.sleep(every)

    def run(self, pipe: Any) -> None:
        """Do the work; whatever it raises becomes the job's state."""
        self.started = time.monotonic()
        self._become(RUNNING)
        try:
            self.check()
            with stoppable(pipe, self):
                self.result = self.work(pipe, self)
        except Stopped:
            self._become(STOPPED)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # PlanError is a ValueError
            logger.info("a job failed", exc_info=True)
            self.fail(str(error) or type(error).__name__)
        except Exception as error:
            logger.exception("a job failed")
            self.fail(f"{type(error).__name__}: {error}")
        else:
            self._become(DONE)

    def fail(self, reason: str) -> None:
        """End the job with a reason."""
        self.error = reason
        self._become(FAILED)

    def _become(self, state: str) -> None:
        self.state = state
        self._touch()

    def _touch(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()


class Device:
    """Loads a pipeline in the background, then runs jobs in the order in which they came.

    Args:
        load: makes the pipeline.
        most: jobs that may wait or run at the same time.
    """

    def __init__(self, load: Callable[[], Any], most: int = 8) -> None:
        self.pipe: Any = None
        self.error = ""
        self.ready = threading.Event()
        """Set once the pipeline is loaded, or has failed to."""
        self._load = load
        self._most = most
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ajour device", daemon=True)
        self._thread.start()

    def submit(
        self, owner: str, work: Callable[[Any, Job], Any], seconds: float | None = None
    ) -> Job:
        """Put a job at the end of the line.

        Raises:
            Refused: if the owner has a job already, or the line is full.
        """
        with self._changed:
            if any(job.owner == owner and not job.over for job in self._jobs):
                raise Refused("a run of yours is under way; stop it first, or wait for it")
            if len(self._jobs) >= self._most:
                raise Refused(f"{len(self._jobs)} runs are waiting already; try again in a minute")
            job = Job(owner, work, seconds)
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def stop(self, owner: str) -> bool:
        """Stop the jobs whose owner is this, or begins with this and a slash; of nobody else.

        Returns:
            Whether there was one.
        """
        with self._changed:
            own = [j for j in self._jobs if j.owner == owner or j.owner.startswith(f"{owner}/")]
            for job in own:
                job.stop()
                if job.state == WAITING:
                    self._jobs.remove(job)
                    job._become(STOPPED)
        return bool(own)

    def ahead(self, job: Job) -> int:
        """Jobs that come before one."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def close(self) -> None:
        """Stop everything and end the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.stop()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            self.pipe = self._load()
        except Exception as error:
            logger.exception("the model could not be loaded")
            self.error = str(error) or type(error).__name__
        self.ready.set()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
            if self.error:
                job.fail(f"the model could not be loaded: {self.error}")
            else:
                job.run(self.pipe)
            with self._changed:
                if job in self._jobs:  # it was not stopped while it waited
                    self._jobs.remove(job)
                self._changed.notify_all()
            for other in list(self._jobs):
                other._touch()  # the line has moved


@contextmanager
def stoppable(pipe: Any, job: Job) -> Iterator[None]:
    """Within the block, no forward pass of a pipeline's transformers begins after a stop."""

    def check(*_: Any) -> None:
        job.check()

    hooks = [module.register_forward_pre_hook(check) for module in transformers_of(pipe)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

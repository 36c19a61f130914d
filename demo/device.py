"""One queue for the device: jobs run one after another in a background thread."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ajour.pipelines.enable import transformers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("ajour")

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"


class Stopped(Exception):
    """Ends a job that was stopped, or whose time limit has passed."""


class Refused(RuntimeError):
    """A job was not accepted; the message gives the reason."""


@dataclass(eq=False)
class Job:
    """A piece of work for the device.

    Attributes:
        owner: whose job it is; an owner has one job at a time.
        work: called with the pipeline and the job.
        seconds: time limit from the start of the work; None for no limit.
        address: of the visitor; empty if not known.
        state: `waiting`, `running`, `done`, `failed` or `stopped`.
        progress: what the work reported last.
        result: what the work returned.
        error: why it failed, in words.
        started: when the work began, by `time.monotonic`.
        timed_out: whether it had to end because its time was up.
    """

    owner: str
    work: Callable[[Any, Job], Any]
    seconds: float | None = None
    address: str = ""
    state: str = WAITING
    progress: Any = None
    result: Any = None
    error: str = ""
    started: float = 0.0
    timed_out: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _version: int = 0

    @property
    def ended(self) -> bool:
        """Whether the job is done, failed or stopped."""
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def stopping(self) -> bool:
        """Whether it was stopped and has not ended yet."""
        return self._stop.is_set() and not self.ended

    def stop(self) -> None:
        """Ask the work to end at its next forward pass."""
        self._stop.set()
        self._touch()

    def check(self) -> None:
        """Raise if the work has to end; the work calls this often.

        Raises:
            Stopped: if the job was stopped or its time is up.
        """
        if self._stop.is_set():
            raise Stopped("stopped")
        if self.seconds is not None and time.monotonic() - self.started > self.seconds:
            self.timed_out = True
            raise Stopped("the time is up")

    def report(self, progress: Any) -> None:
        """Replace the job's progress; called by the work."""
        self.progress = progress
        self._touch()

    def watch(self, every: float = 0.25) -> Iterator[Job]:
        """Yield the job after each change, the last time when it has ended.

        Args:
            every: at least so many seconds lie between two changes; changes between are left out.
        """
        seen = -1
        while True:
            with self._changed:
                if self._version == seen:
                    self._changed.wait(timeout=5.0)
                seen, ended = self._version, self.ended
            yield self
            if ended:
                return
            time.sleep(every)

    def run(self, pipe: Any) -> None:
        """Do the work; an exception becomes the job's state."""
        self.started = time.monotonic()
        self._become(RUNNING)
        try:
            self.check()
            with ExitStack() as hooks:  # a stopped job ends at the transformer's next pass
                for module in transformers_of(pipe):
                    hooks.enter_context(module.register_forward_pre_hook(lambda *_: self.check()))
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
    """Loads a pipeline in the background, then runs jobs in the order of their submission.

    Attributes:
        pipe: the pipeline; None until it is loaded.
        error: why it could not be loaded; empty if it could.
        ready: set once the pipeline is loaded, or could not be.

    Args:
        load: loads the pipeline.
        most: jobs that may wait or run at the same time; one address has at most half of them.
    """

    def __init__(self, load: Callable[[], Any], most: int = 8) -> None:
        self.pipe: Any = None
        self.error = ""
        self.ready = threading.Event()
        self._most = most
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "ajour device")
        self._thread.submit(self._load, load)

    def submit(
        self,
        owner: str,
        work: Callable[[Any, Job], Any],
        seconds: float | None = None,
        address: str = "",
    ) -> Job:
        """Put a job at the end of the queue.

        Args:
            owner: whose job it is.
            work: called with the pipeline and the job.
            seconds: time limit from the start of the work; None for no limit.
            address: of the visitor; empty if not known.

        Raises:
            Refused: if the owner has a job already, or the queue is full, or the visitor's address
                has half of its places.
        """
        job = Job(owner, work, seconds, address)
        with self._lock:
            if any(other.owner == owner and not other.ended for other in self._jobs):
                raise Refused("a run of yours is still in the queue; stop it first, or wait for it")
            if len(self._jobs) >= self._most:
                raise Refused(f"{len(self._jobs)} runs are waiting already; try again in a minute")
            same = sum(other.address == address for other in self._jobs)
            if address and same >= self._most // 2:
                raise Refused(f"{same} runs from your address are waiting; wait for one to end")
            self._thread.submit(self._run, job)
            self._jobs.append(job)
        return job

    def stop(self, owner: str) -> bool:
        """Stop the jobs of an owner, and of owners whose name begins with this one and a slash.

        Returns:
            Whether there were any.
        """
        with self._lock:
            jobs = [j for j in self._jobs if f"{j.owner}/".startswith(f"{owner}/")]
            for job in jobs:
                job.stop()
                if job.state == WAITING:
                    self._jobs.remove(job)
                    job._become(STOPPED)
        return bool(jobs)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs that run or wait, in their order."""
        with self._lock:
            return tuple(self._jobs)

    def ahead(self, job: Job) -> int:
        """How many jobs run before a job."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def close(self) -> None:
        """Stop all jobs and wait for their end."""
        for job in self.jobs:
            job.stop()
        self._thread.shutdown()

    def _load(self, load: Callable[[], Any]) -> None:
        try:
            self.pipe = load()
        except Exception as error:
            logger.exception("the model could not be loaded")
            self.error = str(error) or type(error).__name__
        self.ready.set()

    def _run(self, job: Job) -> None:
        if job.ended:  # it was stopped while it waited
            return
        if self.error:
            job.fail(f"the model could not be loaded: {self.error}")
        else:
            job.run(self.pipe)
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
        for other in self.jobs:
            other._touch()  # the queue has moved

"""The protocol of the Hopper kernel's ring, played in random order.

    python -m tools.hopper_ring

One producer and two consumers pass barriers as `accel/backends/hopper/` does. A schedule
in which all wait, or in which a buffer holds another tile than the one that is read, ends with an
assertion. A wrong protocol hangs a GPU; change this model first, then the kernel.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Tile = tuple[int, int]
"""Work item and tile within it."""

PATIENCE = 200_000
"""Turns after which all are taken to be waiting."""


class Barrier:
    """An mbarrier: a phase ends when `count` have arrived."""

    def __init__(self, count: int) -> None:
        self.count = self.pending = count
        self.phase = 0

    def arrive(self) -> None:
        """One arrival."""
        self.pending -= 1
        if self.pending == 0:
            self.phase, self.pending = self.phase + 1, self.count

    def passes(self, parity: int) -> bool:
        """Whether a wait for the phase of this parity is over."""
        return (self.phase & 1) != parity


class Ring:
    """Buffers and barriers of one program.

    Args:
        items: (masked tiles, tiles) of each work item.
        stages: buffers for keys, and as many for values.
    """

    def __init__(self, items: list[tuple[int, int]], stages: int) -> None:
        self.items, self.stages = items, stages
        self.full = [Barrier(2) for _ in range(stages)]
        self.empty = [Barrier(2) for _ in range(stages)]
        self.q_full, self.q_empty = [Barrier(1), Barrier(1)], [Barrier(1), Barrier(1)]
        self.keys: list[Tile | None] = [None] * stages
        self.values: list[Tile | None] = [None] * stages
        self.queries: list[int | None] = [None, None]

    def produce(self) -> Iterator[None]:
        """The producer; it yields wherever others may run."""
        step = filled = 0
        self.full[0].arrive()
        for item, (_, tiles) in enumerate(self.items):
            start = step
            for tile in range(tiles):
                stage, following = step % self.stages, (step + 1) % self.stages
                self.keys[stage] = (item, tile)
                self.full[stage].arrive()
                if step == start:
                    for half in range(2):
                        while not self.q_empty[half].passes(filled & 1 ^ 1):
                            yield
                        self.queries[half] = item
                        self.q_full[half].arrive()
                while not self.empty[following].passes((step + 1) // self.stages & 1 ^ 1):
                    yield
                self.values[stage] = (item, tile)
                self.full[following].arrive()
                step += 1
                yield
            filled += step > start
        self.full[step % self.stages].arrive()

    def consume(self, half: int) -> Iterator[None]:
        """A consumer; it yields wherever others may run."""
        start = filled = 0
        for item, (masked, tiles) in enumerate(self.items):
            if tiles == 0:
                continue
            while not self.q_full[half].passes(filled & 1):
                yield
            filled += 1
            first, last = start + max(masked, 1) - 1, start + tiles - 1
            yield from self._wait(start)
            for step in range(start, first + 1):
                assert self.keys[step % self.stages] == (item, step - start)
                assert self.queries[half] == item
                yield
                self.empty[step % self.stages].arrive()
                yield from self._wait(step + 1)
                if step < first:
                    assert self.values[step % self.stages] == (item, step - start)
                    yield
            for step in range(first + 1, last + 1):
                assert self.keys[step % self.stages] == (item, step - start)
                assert self.values[(step - 1) % self.stages] == (item, step - 1 - start)
                assert self.queries[half] == item
                yield
                yield from self._wait(step + 1)
                assert self.values[(step - 1) % self.stages] == (item, step - 1 - start)
                self.empty[step % self.stages].arrive()
            self.q_empty[half].arrive()
            yield
            assert self.values[last % self.stages] == (item, tiles - 1)
            start += tiles

    def _wait(self, step: int) -> Iterator[None]:
        while not self.full[step % self.stages].passes(step // self.stages & 1):
            yield


def play(ring: Ring, rng: random.Random) -> None:
    """Let all three run in random order until they are done."""
    running = [ring.produce(), ring.consume(0), ring.consume(1)]
    for _ in range(PATIENCE):
        if not running:
            return
        actor = rng.choice(running)
        try:
            next(actor)
        except StopIteration:
            running.remove(actor)
    raise AssertionError(f"all wait: {ring.items}, {ring.stages} stages")


def main() -> None:
    """Play many random work lists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int, default=400)
    args = parser.parse_args()
    for seed in range(args.games):
        rng = random.Random(seed)
        lengths = [rng.choice([0, 1, 1, 2, 3, 5, 9]) for _ in range(rng.randint(1, 8))]
        items = [(rng.randint(0, tiles), tiles) for tiles in lengths]
        play(Ring(items, rng.choice([2, 4])), rng)
    print(f"{args.games} games, no deadlock, and every tile is read from its own buffer")


if __name__ == "__main__":
    main()

"""A reference that is larger than memory: radii, counts and coverage by blocks, exact, here or on a cluster.

Rows lie in blocks (`advlib.chunks`). A task takes one block as rows and a few others as columns, one after another:

- radii: each block by itself gives a first bound of its points' radii; then every strip of other blocks is searched
  below that bound, and the k smallest distances are merged;
- queries: each strip of reference blocks counts the balls around every query, and marks which balls hold one.

Distances, the scale they are taken in and every decision are those of `advlib.prdc` on one machine, so the results are
the same to the bit, whatever the blocks.

Reading: fitting C blocks reads each about C times, since no task keeps what it read. Memory: a task holds two blocks,
one of them rounded as well, and the working memory left of `memory_gb`.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from advlib import paths
from advlib.chunks import Block, Rows
from advlib.prdc.balls import Balls
from advlib.prdc.nearest import between, merged, within
from advlib.prdc.rounded import RoundedPoints, scale_of
from advlib.tasks import map_tasks

STRIP = 8
"""Reference blocks that one task goes through: what is lost with a killed worker, and what a saved part holds."""


class Setting(NamedTuple):
    """What all tasks are told."""

    k: int
    memory_gb: float
    largest: float
    device: str | None

    def rounded(self, block: Block) -> RoundedPoints:
        """Read and round a block of the reference."""
        return RoundedPoints(torch.from_numpy(block.values()).to(self.device), self.memory_gb, self.largest)


class Strip(NamedTuple):
    """A block as rows, and the blocks that are looked at from it."""

    left: Block
    others: tuple[Block, ...]


def fit_radii(rows: Rows, k: int, memory_gb: float, device: str | None, folder: Path | None) -> np.ndarray:
    """Radii (N,), float64, in the rows' own units.

    Parameters
    ----------
    rows : Rows
        N > k.
    k : int
    memory_gb : float
        GiB that each task may take.
    device : str or None
    folder : Path or None
        Where the distances that a task found are kept, and taken from where they are there already.

    Raises
    ------
    ValueError
        Where `memory_gb` does not hold a task's blocks.
    """
    setting = Setting(k, working_memory(rows.blocks, rows.width, rows.dtype, memory_gb), rows.largest, device)
    keep = _Kept(folder, rows, k)
    nearest: list[np.ndarray] = [np.empty(0)] * len(rows.blocks)
    for block, found in keep.done(_own, rows.blocks, "radii within blocks", lambda block: (block,), setting):
        nearest[block.number] = found

    def bounded(strip: Strip) -> tuple[Strip, np.ndarray]:
        # Asked when the task is sent: by then, other strips may have found nearer ones.
        return strip, nearest[strip.left.number][:, -1].copy()

    for strip, found in keep.done(_beyond, _strips(rows.blocks), "radii between blocks", bounded, setting):
        nearest[strip.left.number] = merged(nearest[strip.left.number], found)
    return np.concatenate([found[:, -1] for found in nearest]) / scale_of(rows.largest)


def _strips(blocks: tuple[Block, ...]) -> list[Strip]:
    """Pair every block with all others, a strip at a time: the first strip of all blocks, then the second of all."""
    strips = []
    for at in range(0, len(blocks) - 1, STRIP):
        for left in blocks:
            # The next blocks first, so that tasks side by side do not all read block 0.
            order = blocks[left.number + 1 :] + blocks[: left.number]
            strips.append(Strip(left, order[at : at + STRIP]))
    return strips


def _own(asked: tuple[Block], setting: Setting) -> np.ndarray:
    return within(setting.rounded(*asked), setting.k)


def _beyond(asked: tuple[Strip, np.ndarray], setting: Setting) -> np.ndarray:
    """Return the k smallest distances from a block to a strip, of those that the bound leaves."""
    (left, others), bound = asked
    values = left.values()
    found = np.full((left.rows, setting.k), np.inf)
    for other in others:
        points = setting.rounded(other)
        found = merged(found, between(points, values, bound, setting.k))
        bound = np.minimum(bound, found[:, -1])
        del points  # before the next block is read
    return found


class _Kept:
    """Distances that tasks found, in a folder named by the data and k; nothing is kept without a folder."""

    def __init__(self, folder: Path | None, rows: Rows, k: int):
        words = "\n".join([f"advlib blocks 1 k={k}", *rows.digests, *(str(block.rows) for block in rows.blocks)])
        self.folder = None if folder is None else Path(folder) / hashlib.sha256(words.encode()).hexdigest()[:32]
        self.k = k

    def done(
        self, function: Callable, items: Any, words: str, asked: Callable[[Any], tuple], setting: Setting
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield (item, distances): what is kept, then what the tasks find, kept as it comes.

        A task is given what `asked` makes of its item: a tuple that begins with it.
        """
        missing = []
        for item in items:
            found = self._read(item)
            if found is None:
                missing.append(item)
            else:
                yield item, found
        calls, total = map(asked, missing), len(missing)
        for (item, *_), found in map_tasks(function, calls, words, shared=[setting], total=total) if missing else ():
            self._write(item, found)
            yield item, found

    def _read(self, item: Any) -> np.ndarray | None:
        if self.folder is None:
            return None
        try:
            with (self.folder / _name(item)).open("rb") as file:
                digest, found = file.read(64), np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None  # missing, or cut: found again
        whole = digest == hashlib.sha256(found.tobytes()).hexdigest().encode()
        left = item.left if isinstance(item, Strip) else item
        return found if whole and found.shape == (left.rows, self.k) else None

    def _write(self, item: Any, found: np.ndarray) -> None:
        if self.folder is not None:
            with paths.replacing(self.folder / _name(item)) as temporary, temporary.open("wb") as file:
                file.write(hashlib.sha256(found.tobytes()).hexdigest().encode())
                np.save(file, found)


def _name(item: Any) -> str:
    if isinstance(item, Strip):
        return f"{item.left.number:06d}-{item.others[0].number:06d}-{len(item.others)}.distances"
    return f"{item.number:06d}.distances"


class BlockedBalls:
    """Balls around a reference in blocks: counts and hits of queries, as `advlib.prdc.balls.Balls` gives them.

    Parameters
    ----------
    rows : Rows
    radii : (N,) float64 array
        In the rows' own units.
    memory_gb : float
    device : str or None
    """

    def __init__(self, rows: Rows, radii: np.ndarray, memory_gb: float, device: str | None):
        self.rows, self.radii = rows, radii
        self.memory_gb, self.device = memory_gb, device

    def count(self, queries: Rows | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of balls around each query, (M,) int64, and which balls hold any, (N,) bool."""
        counts, covered = np.zeros(len(queries), dtype=np.int64), np.zeros(len(self.radii), dtype=bool)
        for first, start, (found, held) in self._each(Balls.count, queries, "counting balls"):
            counts[first : first + len(found)] += found
            covered[start : start + len(held)] |= held
        return counts, covered

    def score(self, queries: Rows | np.ndarray, found: Callable[[np.ndarray, np.ndarray], object]) -> None:
        """Call `found(rows, columns)` with every pair strictly inside, in no particular order."""
        for first, start, (rows, columns) in self._each(_pairs, queries, "finding balls"):
            found(rows + first, columns + start)

    def _each(self, function: Callable, queries: Rows | np.ndarray, words: str) -> Iterator[tuple[int, int, Any]]:
        """Yield first query, first ball, and what `function` found, for every strip of balls and block of queries."""
        blocks = queries.blocks if isinstance(queries, Rows) else _in_memory(queries)
        widest = max(self.rows.dtype, blocks[0].dtype)
        left = working_memory(self.rows.blocks + blocks, self.rows.width, widest, self.memory_gb)
        setting = Setting(0, left, self.rows.largest, self.device)
        strips = [self.rows.blocks[at : at + STRIP] for at in range(0, len(self.rows.blocks), STRIP)]
        asked = []
        for block, strip in itertools.product(blocks, strips):
            stop = strip[-1].first + strip[-1].rows
            asked.append(_Asked(function, Strip(block, strip), self.radii[strip[0].first : stop]))
        for each, answers in map_tasks(_ask, asked, words, shared=[setting]):
            for other, answer in zip(each.strip.others, answers, strict=True):
                yield each.strip.left.first, other.first, answer


class _Asked(NamedTuple):
    """A block of queries, a strip of balls, and these balls' radii."""

    function: Callable
    strip: Strip
    radii: np.ndarray


def _ask(asked: _Asked, setting: Setting) -> list[Any]:
    queries, answers = asked.strip.left.values(), []
    start = asked.strip.others[0].first
    for other in asked.strip.others:
        points = setting.rounded(other)
        own = asked.radii[other.first - start : other.first - start + other.rows]
        answers.append(asked.function(Balls(points, own * points.scale), queries))
        del points
    return answers


def _pairs(balls: Balls, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    balls.score(queries, lambda rows, columns: found.append((rows, columns)))
    rows, columns = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    return rows, columns


def _in_memory(array: np.ndarray) -> tuple[Block, ...]:
    rows, dtype = 8192, str(array.dtype)
    parts = [array[lo : lo + rows] for lo in range(0, len(array), rows)]
    return tuple(Block(i, i * rows, len(part), partial(np.asarray, part), dtype) for i, part in enumerate(parts))


def working_memory(blocks: tuple[Block, ...], width: int, dtype: str, memory_gb: float) -> float:
    """Return the GiB that two blocks leave of `memory_gb`, or raise a ValueError that says how large they may be.

    A task holds one block as rows and one as columns, which is there as read, copied and rounded.
    """
    if not memory_gb > 0:
        raise ValueError(f"memory_gb must be a positive number of GiB, but is {memory_gb}")
    row = _row_bytes(width, dtype)
    largest = max(block.rows for block in blocks)
    left = memory_gb - largest * row / 2**30
    if left < memory_gb / 4:
        most = int(0.75 * memory_gb * 2**30 / row)
        raise ValueError(
            f"memory_gb = {memory_gb:g} must hold two chunks, but the largest has {largest:,} rows of {width:,} "
            f"numbers: rechunk to at most {most:,} rows, or give at least {largest * row / 2**30 / 0.75:.2g} GiB"
        )
    return left


def _row_bytes(width: int, dtype: str) -> int:
    return width * 3 * np.dtype(dtype).itemsize + 4 * (width + 6) + 64


def fitting_rows(width: int, dtype: str, memory_gb: float) -> int:
    """Return how many rows a block may have so that half of `memory_gb` is left to work in, 16,384 at most."""
    return int(max(1, min(16_384, memory_gb * 2**29 / _row_bytes(width, dtype))))

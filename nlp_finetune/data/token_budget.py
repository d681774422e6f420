"""The rows of an optimizer step cut into pieces of about equally many tokens, none above a budget."""

from __future__ import annotations

from collections.abc import Sequence


def pieces(lengths: Sequence[int], *, most: int, processes: int, padded: bool) -> list[int]:
    """Numbers of rows of the pieces that rows of ascending `lengths` are cut into, k x `processes` of them.

    k is the smallest number with which no piece has more than `most` tokens, padding counted where `padded`. Of
    all cuts into so many pieces it is one whose largest piece is smallest. Each piece has at least one row, so
    where rows are fewer than the pieces that this would take, pieces are larger.
    """
    needed = len(_filled(lengths, most, padded))
    k = min(-(-needed // processes), len(lengths) // processes)
    count = max(1, k) * processes
    low, high = max(lengths), _cost(lengths, padded)
    while low < high:  # the smallest budget with which the pieces suffice
        middle = (low + high) // 2
        if len(_filled(lengths, middle, padded)) <= count:
            high = middle
        else:
            low = middle + 1
    return _split(_filled(lengths, low, padded), lengths, count, padded)


def _cost(lengths: Sequence[int], padded: bool) -> int:
    """Tokens of a piece of rows of ascending lengths."""
    return lengths[-1] * len(lengths) if padded else sum(lengths)


def _filled(lengths: Sequence[int], most: int, padded: bool) -> list[int]:
    """Numbers of rows of as few pieces as possible, each of at most `most` tokens or of one row."""
    found, rows, tokens = [], 0, 0
    for length in lengths:
        with_it = length * (rows + 1) if padded else tokens + length
        if rows and with_it > most:
            found.append(rows)
            rows, tokens = 0, 0
        rows, tokens = rows + 1, tokens + length
    return [*found, rows]


def _split(found: list[int], lengths: Sequence[int], count: int, padded: bool) -> list[int]:
    """The same rows in `count` pieces: the largest ones of several rows are halved."""
    while len(found) < count:
        ends = [sum(found[: i + 1]) for i in range(len(found))]
        costs = [
            _cost(lengths[end - rows : end], padded) if rows > 1 else 0 for rows, end in zip(found, ends, strict=True)
        ]
        place = costs.index(max(costs))
        rows = found[place]
        found[place : place + 1] = [rows - rows // 2, rows // 2]
    return found

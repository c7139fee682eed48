"""Which queue the steps of a kind wait in, so that a worker can be kept for one sort of work.

`train` is for slices of training, minutes on every core or a GPU; `search` for evaluating,
finishing and exporting networks; `light` for the rest, which is short. A worker may serve several
and can run any step: the queue only says who is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

TRAIN, SEARCH, LIGHT = "train", "search", "light"
QUEUES = (TRAIN, SEARCH, LIGHT)

QUEUE_BY_KIND: Mapping[str, str] = {
    **dict.fromkeys(("teacher", "reorder", "supernet", "shortlist", "distill", "compress"), TRAIN),
    **dict.fromkeys(
        ("search", "evaluate", "baseline", "package", "verify", "export", "robustness"), SEARCH
    ),
}


def queue_of(kind: str) -> str:
    return QUEUE_BY_KIND.get(kind, LIGHT)

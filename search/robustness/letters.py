"""Typing errors in a text: letters swapped with the next one, left out, put in or mistyped.

The kinds are those by which Belinkov and Bisk (arXiv 1711.02173) and Pruthi et al. (arXiv
1905.11268) disturb words, drawn with equal chances.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

_RUN = re.compile(r"[^\W\d_]+")
_KINDS = ("swap", "delete", "insert", "substitute")


def alphabet_of(texts: Iterable[str]) -> str:
    """Letters of the texts, lower case, in order: what may be mistyped into them."""
    letters = {c for text in texts for run in _RUN.findall(text) for c in run.lower()}
    return "".join(sorted(c for c in letters if c.isalpha()))


def with_typing_errors(text: str, rate: float, alphabet: str, rng: random.Random) -> str:
    """The text with each letter of it hit with a chance of `rate`.

    Every run of letters keeps one at least, and what is no letter stays, so that no text becomes
    empty. The same draws are made whatever the rate: what is hit at a lower one is hit at a
    higher one too.
    """
    return _RUN.sub(lambda run: _disturbed(run.group(), rate, alphabet, rng), text)


def _disturbed(run: str, rate: float, alphabet: str, rng: random.Random) -> str:
    letters, written = list(run), ""
    for place in range(len(letters)):
        is_hit, kind, drawn = rng.random() < rate, rng.choice(_KINDS), rng.choice(alphabet)
        letter = letters[place]
        if not is_hit:
            written += letter
        elif kind == "insert":
            written += letter + drawn
        elif kind == "substitute":
            written += _another(letter, drawn, alphabet)
        elif kind == "swap":
            if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letter
            written += letters[place]
    # All of it was left out.
    return written or run[0]


def _another(letter: str, drawn: str, alphabet: str) -> str:
    """The letter that was drawn, or the one after it where that is the same."""
    if drawn != letter.lower():
        return drawn
    return alphabet[(alphabet.index(drawn) + 1) % len(alphabet)]

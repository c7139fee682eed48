from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.robustness.letters import alphabet_of, with_typing_errors

TEXT = "The film, shot in 1999, was a warm and clever story of its cast."
ALPHABET = alphabet_of([TEXT])


def noised(rate: float, seed: int = 0, text: str = TEXT) -> str:
    return with_typing_errors(text, rate, ALPHABET, random.Random(seed))


def test_the_alphabet_is_of_the_texts_own_letters() -> None:
    assert alphabet_of(["Ba1 c!", "да"]) == "abcад"
    assert alphabet_of(["1999, _ !"]) == ""


def test_no_noise_changes_nothing() -> None:
    assert noised(0.0) == TEXT


def test_the_same_seed_makes_the_same_errors_and_another_one_others() -> None:
    assert noised(0.3) == noised(0.3) != noised(0.3, seed=1)


def test_as_many_letters_are_hit_as_the_rate_says() -> None:
    found = noised(0.1, text="clever " * 4000).split()
    assert len(found) == 4000
    # Of six letters none is hit; a last letter has none to be swapped with.
    spared = 0.9**5 * (0.9 + 0.1 / 4)
    assert found.count("clever") / 4000 == pytest.approx(spared, abs=0.03)


def test_what_is_hit_at_a_low_rate_is_hit_at_a_higher_one() -> None:
    words = [f"word{i}" for i in range(100)]
    text = " ".join(words)
    low, high = noised(0.05, text=text).split(), noised(0.3, text=text).split()
    hit = [low_ != word for low_, word in zip(low, words, strict=True)]
    assert 5 < sum(hit) < 50
    assert all(high_ != word for high_, word, is_ in zip(high, words, hit, strict=True) if is_)


def test_digits_and_marks_stay() -> None:
    def others(text: str) -> str:
        return "".join(c for c in text if not c.isalpha())

    assert others(noised(1.0)) == others(TEXT)


@given(st.text(max_size=40), st.floats(0, 1), st.integers(0, 99))
def test_no_run_of_letters_disappears(text: str, rate: float, seed: int) -> None:
    alphabet = alphabet_of([text]) or "x"
    found = with_typing_errors(text, rate, alphabet, random.Random(seed))
    assert bool(found) == bool(text)
    assert len(found.split()) == len(text.split())

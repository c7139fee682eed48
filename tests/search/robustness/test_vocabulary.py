from __future__ import annotations

from search.robustness.vocabulary import MIN_COUNT, Vocabulary

COUNTS = {
    "lovely": (0, 20),
    "clever": (0, 25),
    "clumsy": (25, 0),
    "film": (50, 50),
    "plot": (45, 52),
    "the": (500, 500),
    "photographer": (48, 51),
}
WORDS = Vocabulary(COUNTS)


def test_a_word_is_like_those_as_long_as_frequent_and_as_telling() -> None:
    assert WORDS.alike("lovely") == ["clever"]
    assert WORDS.alike("film") == ["plot"], "neither a frequent word nor a long one"
    assert WORDS.alike("clumsy") == [], "its opposites are as long and as frequent"
    assert WORDS.alike("unheard") == []


def test_words_are_counted_by_label_and_rare_ones_are_left_out() -> None:
    texts = [("good, good film", 1), ("a film!", 0)] * MIN_COUNT
    found = Vocabulary.of([*texts, ("rare", 0)], 2)
    assert found.counts == {
        "film": (MIN_COUNT, MIN_COUNT),
        "good": (0, 2 * MIN_COUNT),
        "a": (MIN_COUNT, 0),
    }


def test_it_is_read_back_as_it_was_written() -> None:
    again = Vocabulary.from_dict(WORDS.to_dict())
    assert again.counts == COUNTS
    assert again.alike("lovely") == ["clever"]


def test_of_no_texts_no_word_is_like_another() -> None:
    assert Vocabulary({}).alike("film") == []

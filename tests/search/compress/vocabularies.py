"""Tokenizers of every kind that can be trimmed, as their files say, and sentences for them.

Their pieces are written down: what the library trains differs from run to run.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from search.training.batches import TokenRows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TRAIN = (
    "the cat sat on the mat",
    "a cat and a dog sat",
    "the dog ran after the cat",
    "cats and dogs and mats",
)
HELD_OUT = (
    "the cat ran on",
    "the singing birds sang songs",
    "a bird sat singing on the mat",
    "dogs sing",
)
# In the order in which they are merged, or are likely.
WHOLE = ("the", "cat", "sat", "dog", "and", "on", "mat", "ran", "sing", "bird", "sang", "singing")
INSIDE = ("s", "ing", "ng", "ter")
LETTERS = sorted({letter for text in (*TRAIN, *HELD_OUT) for letter in text if letter != " "})
KINDS = ("wordpiece", "bpe", "unigram")


@lru_cache
def spec_of(kind: str) -> dict[str, Any]:
    tokenizer = _MAKERS[kind]()
    # Padding and truncation belong to a file too, and must not get in anybody's way.
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(16)
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    return spec


def reader(spec: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def rows_of(spec: dict[str, Any], texts: tuple[str, ...]) -> TokenRows:
    """Labels are 0 and 1 in turn."""
    ids = [reader(spec).encode(text).ids for text in texts]
    tokens = torch.tensor([i for row in ids for i in row], dtype=torch.int32)
    offsets = torch.tensor([0, *map(len, ids)]).cumsum(0)
    return TokenRows(tokens, offsets, torch.arange(len(texts)) % 2)


def size_of(spec: dict[str, Any]) -> int:
    return reader(spec).get_vocab_size()


def _wordpiece() -> Tokenizer:
    inside = [f"##{piece}" for piece in (*LETTERS, *INSIDE)]
    vocab = dict.fromkeys([*SPECIAL, *LETTERS, *WHOLE, *inside])
    ids = {piece: i for i, piece in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _bpe() -> Tokenizer:
    """Of bytes, with its special tokens at the end, as GPT-2 and RoBERTa have theirs."""
    ways = [
        (word[:end], word[end])
        for word in (*(f"Ġ{word}" for word in WHOLE), *INSIDE)
        for end in range(1, len(word))
    ]
    merges = list(dict.fromkeys(ways))
    made = [first + second for first, second in merges]
    pieces = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *made])
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    )
    return tokenizer


def _unigram() -> Tokenizer:
    likely = [*(f"▁{word}" for word in WHOLE), *(p for p in INSIDE if p not in LETTERS)]
    scores = {piece: -2 - 0.1 * place for place, piece in enumerate(likely)}
    single = {letter: -6 - 0.1 * place for place, letter in enumerate(["▁", *LETTERS])}
    rare = {"▁singings": -20.0}
    special = dict.fromkeys(SPECIAL, 0.0)
    entries = list({**special, **scores, **single, **rare}.items())
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=SPECIAL.index("[UNK]")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


_MAKERS = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}

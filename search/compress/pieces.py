"""The pieces of a tokenizer.json, and the file with fewer of them. No torch.

A text all of whose tokens stay is tokenized as before: WordPiece takes the longest piece that fits
and still finds it; BPE keeps every merge on the way to a piece that stays, in its order; Unigram's
best division stays the best of those that are left.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from search.errors import InvalidInput
from search.model.checkpoint import TOKENIZER_FILE

Spec = Mapping[str, Any]
"""What a tokenizer.json says."""
Change = Callable[[int], int]


class PieceModel(ABC):
    """The `model` of a tokenizer.json: which pieces there are, and how words are made of them."""

    def __init__(self, model: Spec) -> None:
        self._model = model
        self.vocab = self._read_vocab()

    def always_kept(self) -> Iterator[str]:
        """Pieces without which some text could not be tokenized: characters, bytes, unknown."""
        yield from (piece for piece in self.vocab if self._is_single(piece))
        if self.unknown is not None:
            yield self.unknown

    def parts(self, piece: str) -> frozenset[str]:
        """Pieces by way of which the tokenizer gets at this one."""
        del piece
        return frozenset()

    @property
    def unknown(self) -> str | None:
        """What stands for a word or character that no piece fits."""
        name = self._model.get("unk_token")
        return name if name in self.vocab else None

    @abstractmethod
    def trimmed(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        """The model of those pieces alone that are in `new_ids`, by their old numbers."""

    def splitter(self, trimmed: Spec) -> Callable[[str], list[int]]:
        """Of a piece that fell away, what the tokenizer without it makes of it: new ids."""
        model = Tokenizer.from_str(json.dumps(trimmed)).model
        return lambda piece: [token.id for token in model.tokenize(piece)]

    def _read_vocab(self) -> dict[str, int]:
        return dict(self._model["vocab"])

    def _is_single(self, piece: str) -> bool:
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        return len(piece) == 1 or is_byte

    def _trimmed_vocab(self, new_ids: Mapping[int, int]) -> dict[str, int]:
        return {piece: new_ids[i] for piece, i in self.vocab.items() if i in new_ids}


class WordPieces(PieceModel):
    """Longest piece first, those inside of a word marked (BERT, arXiv 1810.04805, section 3)."""

    def trimmed(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        return {**self._model, "vocab": self._trimmed_vocab(new_ids)}

    def splitter(self, trimmed: Spec) -> Callable[[str], list[int]]:
        """The library tokenizes whole words only, and a piece may be the inside of one."""
        vocab = trimmed["model"]["vocab"]

        def split(piece: str) -> list[int]:
            found: list[int] = []
            is_inside = self._is_inside(piece)
            rest = piece.removeprefix(self._prefix) if is_inside else piece
            while rest:
                mark = self._prefix if is_inside else ""
                ends = (end for end in range(len(rest), 0, -1) if mark + rest[:end] in vocab)
                end = next(ends, 0)
                if not end:
                    return []
                found.append(vocab[mark + rest[:end]])
                rest, is_inside = rest[end:], True
            return found

        return split

    @property
    def _prefix(self) -> str:
        return str(self._model.get("continuing_subword_prefix", "##"))

    def _is_inside(self, piece: str) -> bool:
        return piece.startswith(self._prefix) and piece != self._prefix

    def _is_single(self, piece: str) -> bool:
        return len(piece.removeprefix(self._prefix) if self._is_inside(piece) else piece) == 1


class Merges(PieceModel):
    """Byte-pair encoding (arXiv 1508.07909, section 3.2).

    A piece goes with those that it is merged from: what merges lead to it in a word are those that
    lead to it by itself, since none of them goes beyond its ends.
    """

    def __init__(self, model: Spec) -> None:
        super().__init__(model)
        for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(mark):
                raise InvalidInput(TOKENIZER_FILE, f"BPE with {mark} cannot be trimmed")
        self._pairs = [self._pair(merge) for merge in model["merges"]]
        self._rank = {pair: rank for rank, pair in enumerate(self._pairs)}

    def parts(self, piece: str) -> frozenset[str]:
        symbols, made = list(piece), set()
        while True:
            pairs = list(pairwise(symbols))
            places = [place for place, pair in enumerate(pairs) if pair in self._rank]
            if not places:
                break
            place = min(places, key=lambda place: self._rank[pairs[place]])
            symbols[place : place + 2] = ["".join(pairs[place])]
            made.add(symbols[place])
        # Some pieces are found whole (`ignore_merges`), and no merge leads to them.
        return frozenset(made) if symbols == [piece] else frozenset()

    def trimmed(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        vocab = self._trimmed_vocab(new_ids)
        merges = [
            merge
            for merge, (first, second) in zip(self._model["merges"], self._pairs, strict=True)
            if first in vocab and second in vocab and first + second in vocab
        ]
        return {**self._model, "vocab": vocab, "merges": merges}

    def _pair(self, merge: str | Sequence[str]) -> tuple[str, str]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        return first, second


class Unigrams(PieceModel):
    """Pieces with scores, the likeliest division of a word wins (arXiv 1804.10959, section 3)."""

    def always_kept(self) -> Iterator[str]:
        yield from super().always_kept()
        # A character without a piece costs as much more than the least likely one.
        yield min(self._model["vocab"], key=lambda entry: float(entry[1]))[0]

    @property
    def unknown(self) -> str | None:
        place = self._model.get("unk_id")
        return None if place is None else str(self._model["vocab"][place][0])

    def trimmed(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        entries = self._model["vocab"]
        vocab = [entry for place, entry in enumerate(entries) if place in new_ids]
        place = self._model.get("unk_id")
        return {**self._model, "vocab": vocab, "unk_id": None if place is None else new_ids[place]}

    def _read_vocab(self) -> dict[str, int]:
        return {piece: place for place, (piece, _) in enumerate(self._model["vocab"])}


_MODELS: Mapping[str, type[PieceModel]] = {
    "WordPiece": WordPieces,
    "BPE": Merges,
    "Unigram": Unigrams,
}


def kept_ids(tokenizer: Spec, used: Sequence[int]) -> list[int]:
    """Ids that stay, ascending: those in use, the pieces that they are made from, special tokens,
    and single characters and bytes, so that every text can be tokenized still.

    Raises:
        InvalidInput: no such tokenizer can be trimmed.
    """
    model, added = _model_of(tokenizer), _added(tokenizer)
    names = {i: piece for piece, i in model.vocab.items()}
    kept = {model.vocab[piece] for piece in model.always_kept()} | set(added.values())
    kept |= set(_ids_of_frame(tokenizer)) | {i for i in used if i in names}
    for i in tuple(kept & names.keys()):
        kept |= {model.vocab[part] for part in model.parts(names[i])}
    return sorted(kept)


def trimmed_tokenizer(tokenizer: Spec, kept: Sequence[int]) -> dict[str, Any]:
    """The tokenizer of the pieces `kept` (see `kept_ids`), numbered anew in their order."""
    new_ids = {old: new for new, old in enumerate(kept)}
    found = dict(tokenizer) | {"model": _model_of(tokenizer).trimmed(new_ids)}
    found["added_tokens"] = [
        {**token, "id": new_ids[token["id"]]} for token in tokenizer.get("added_tokens") or []
    ]
    return found | _framed(tokenizer, lambda old: new_ids[old])


def replacements(tokenizer: Spec, kept: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """For every old id, the new ones that stand for it: what fell away is tokenized by the
    tokenizer without it, as far as that can be told from the piece alone.

    Raises:
        InvalidInput: a piece is made of nothing that is left, and there is no unknown token.
    """
    new_ids: dict[int, tuple[int, ...]] = {old: (new,) for new, old in enumerate(kept)}
    model, trimmed = _model_of(tokenizer), trimmed_tokenizer(tokenizer, kept)
    split = model.splitter(trimmed)
    unknown = [] if model.unknown is None else [*new_ids[model.vocab[model.unknown]]]
    for piece, old in model.vocab.items():
        if old not in new_ids:
            new_ids[old] = tuple(split(piece) or unknown)
            if not new_ids[old]:
                raise InvalidInput(TOKENIZER_FILE, f"has no pieces to write {piece!r} with")
    return new_ids


def _model_of(tokenizer: Spec) -> PieceModel:
    model = tokenizer["model"]
    # Files of the library's first versions do not name the kind.
    kind = str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))
    if kind not in _MODELS:
        raise InvalidInput(
            TOKENIZER_FILE, f"a vocabulary of {sorted(_MODELS)} can be trimmed, not of {kind}"
        )
    return _MODELS[kind](model)


def _added(tokenizer: Spec) -> dict[str, int]:
    return {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}


# --- ids beside the vocabulary ------------------------------------------------------------------


def _ids_of_frame(tokenizer: Spec) -> list[int]:
    """Of the tokens that are put around every text."""
    found: list[int] = []

    def note(old: int) -> int:
        found.append(old)
        return old

    _framed(tokenizer, note)
    return found


def _framed(tokenizer: Spec, change: Change) -> dict[str, Any]:
    """The parts of the file that put tokens around texts, with other ids."""
    found: dict[str, Any] = {}
    if tokenizer.get("post_processor"):
        found["post_processor"] = _processor(tokenizer["post_processor"], change)
    if tokenizer.get("padding"):
        padding = tokenizer["padding"]
        found["padding"] = {**padding, "pad_id": change(padding["pad_id"])}
    return found


def _processor(processor: Spec, change: Change) -> dict[str, Any]:
    found = dict(processor)
    for name in ("sep", "cls"):  # of BERT's and RoBERTa's own processors: a token and its id
        if name in found:
            token, old = found[name]
            found[name] = [token, change(old)]
    if "special_tokens" in found:
        found["special_tokens"] = {
            name: {**token, "ids": [change(old) for old in token["ids"]]}
            for name, token in found["special_tokens"].items()
        }
    if "processors" in found:
        found["processors"] = [_processor(part, change) for part in found["processors"]]
    return found

"""From a data set's rows to what a model of a shape reads: tokens, or normalised pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from search.data.dataset import Dataset, Texts, Unlabelled
from search.data.documents import Documents
from search.data.images import Images, Normalisation, check_image_size, read_normalisation
from search.data.splits import SPLITS, Splits
from search.data.tagged import TaggedTexts
from search.data.texts import LabelledTexts, PlainTexts
from search.errors import InvalidInput
from search.model.checkpoint import TOKENIZER_FILE
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape
from search.training.batches import TokenRows
from search.training.evaluate import predict
from search.training.image_rows import ImageRows
from search.training.rows import Rows
from search.training.tasks import IGNORED

# The library keeps a hundred bytes and more for each token of what it encodes at once.
TEXTS_AT_ONCE = 256

Encode = Callable[[Sequence[int]], Rows]


def load_rows(path: Path) -> Rows:
    """Rows of any kind, from a file that their `save` wrote."""
    with safe_open(path, framework="pt") as stored:
        has_pixels = "pixels" in stored.keys()  # noqa: SIM118, it is no dict
    return ImageRows.load(path) if has_pixels else TokenRows.load(path)


def encode_splits(
    dataset: Dataset, splits: Splits, folder: Path, shape: ModelShape, *, max_seq_len: int
) -> Iterator[tuple[str, Rows]]:
    """Each split by its name, the training split first.

    Texts without labels get no vectors yet: see `with_vectors`.

    Args:
        folder: with the model's tokenizer, or with what it says of how its images are normalised;
            where it says nothing, the training split does.
        max_seq_len: tokens to which texts are cut; running text is cut into blocks of as many.

    Raises:
        InvalidInput: the data do not fit the model, say, a sentence of too many tokens.
    """
    encode = _encoder(dataset, splits, folder, shape, max_seq_len)
    for name in SPLITS:
        yield name, encode(getattr(splits, name))


def encode_unlabelled(
    found: Unlabelled, folder: Path, shape: ModelShape, *, max_seq_len: int
) -> Rows:
    """Rows that have no labels, read as those of the splits were.

    Args:
        folder: with the model's tokenizer, or with how the splits' images were normalised.
        max_seq_len: as the splits have it.

    Raises:
        InvalidInput: images of another size than the model reads.
    """
    if isinstance(found, Images):
        check_image_size(found.summary(), shape, "unlabelled.image")
    places = range(len(found))
    splits = Splits.of(train=places, search=(), validation=(), test=())
    return _encoder(found, splits, folder, shape, max_seq_len)(places)


def with_vectors(rows: Rows, teacher: ElasticTransformer) -> TokenRows:
    """The texts with the teacher's vectors as their labels, (rows, features)."""
    assert isinstance(rows, TokenRows)
    return replace(rows, labels=predict(teacher, rows))


@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads further texts as those of a split were read: the tokenizer is put in order once."""

    tokenizer: Tokenizer
    shape: ModelShape
    max_seq_len: int

    def read(self, texts: Texts) -> TokenRows:
        """A row each; of documents as many blocks as they fill.

        Words beyond `max_seq_len` have no answer: texts that were changed may have become longer.
        Labels of texts without any are (rows, 0), as `encode_splits` leaves them.
        """
        places = range(len(texts))
        if isinstance(texts, Documents):
            return _blocks(texts, self.tokenizer, self.max_seq_len, places)
        self.tokenizer.enable_truncation(self.max_seq_len)
        if isinstance(texts, TaggedTexts):
            return _tagged_rows(texts, self.tokenizer, self.max_seq_len, places)
        has_types = self.shape.has_token_type_input
        return _text_rows(texts, self.tokenizer, places, has_types=has_types)


def load_tokenizer(path: Path) -> Tokenizer:
    """Raises: InvalidInput when the file is none that the library reads."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise InvalidInput(TOKENIZER_FILE, f"cannot be read: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _encoder(
    dataset: Dataset, splits: Splits, folder: Path, shape: ModelShape, max_seq_len: int
) -> Encode:
    if isinstance(dataset, Images):
        check_image_size(dataset.summary(), shape)
        normalisation = read_normalisation(folder, shape.num_channels)
        if normalisation is None:
            normalisation = Normalisation.of(dataset.pixels[list(splits.train)])
        num_tokens = shape.num_prefix_tokens + shape.num_patches
        return partial(_image_rows, dataset, normalisation, num_tokens)
    if max_seq_len > shape.max_seq_len:
        raise InvalidInput(
            "training.max_seq_len",
            f"must be at most {shape.max_seq_len}, the model's positions, got {max_seq_len}",
        )
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    if isinstance(dataset, Documents):
        return partial(_blocks, dataset, tokenizer, max_seq_len)
    if isinstance(dataset, TaggedTexts):
        return partial(_tagged_rows, dataset, tokenizer, max_seq_len)
    assert isinstance(dataset, LabelledTexts | PlainTexts)
    tokenizer.enable_truncation(max_seq_len)
    return partial(_text_rows, dataset, tokenizer, has_types=shape.has_token_type_input)


def _image_rows(
    images: Images, normalisation: Normalisation, num_tokens: int, places: Sequence[int]
) -> ImageRows:
    return ImageRows(
        torch.from_numpy(images.pixels[list(places)]),
        torch.tensor([images.labels[i] for i in places]) if images.labels else _no_labels(places),
        torch.tensor(normalisation.mean),
        torch.tensor(normalisation.std),
        num_tokens,
    )


def _text_rows(
    dataset: LabelledTexts | PlainTexts,
    tokenizer: Tokenizer,
    places: Sequence[int],
    *,
    has_types: bool,
) -> TokenRows:
    texts: Iterable[Any] = (dataset.texts[i] for i in places)
    labels = _no_labels(places)
    if isinstance(dataset, LabelledTexts):
        labels = torch.tensor([dataset.labels[i] for i in places])
    if dataset.pairs is not None:
        texts = [(dataset.texts[i], dataset.pairs[i]) for i in places]
    ids, types = [], []
    for encoding in _encodings(tokenizer, texts):
        ids.append(torch.tensor(encoding.ids, dtype=torch.int32))
        if has_types:
            types.append(torch.tensor(encoding.type_ids, dtype=torch.int8))
    return TokenRows(torch.cat(ids), _offsets(ids), labels, torch.cat(types) if types else None)


def _tagged_rows(
    dataset: TaggedTexts, tokenizer: Tokenizer, max_seq_len: int, places: Sequence[int]
) -> TokenRows:
    """A word's first token carries its tag, the others and special ones none.

    As BERT does (arXiv 1810.04805, section 5.3).
    """
    _put_spaces_before_words(tokenizer)
    words = (list(dataset.words[i]) for i in places)
    ids, labels = [], []
    for place, encoding in zip(
        places, _encodings(tokenizer, words, is_pretokenized=True), strict=True
    ):
        line = dataset.lines[place]
        if len(encoding.ids) > max_seq_len:
            raise InvalidInput(
                "data.text",
                f"line {line} has {len(encoding.ids)} tokens, but training.max_seq_len is "
                f"{max_seq_len}: raise it, or divide the sentence",
            )
        ids.append(torch.tensor(encoding.ids, dtype=torch.int32))
        labels.append(torch.tensor(_labels_of_first_tokens(encoding, dataset.tags[place])))
        if bool((labels[-1] == IGNORED).all()):
            raise InvalidInput("data.text", f"line {line}: no word of it has a token")
    return TokenRows(torch.cat(ids), _offsets(ids), torch.cat(labels), has_token_labels=True)


def _blocks(
    dataset: Documents, tokenizer: Tokenizer, max_seq_len: int, places: Sequence[int]
) -> TokenRows:
    """Blocks of `max_seq_len` tokens, whose labels are the tokens that follow each.

    Every token of a text but the first one is asked for once.
    """
    blocks: list[Tensor] = []
    labels = []
    for encoding in _encodings(tokenizer, (dataset.texts[i] for i in places)):
        ids = torch.tensor(encoding.ids)
        if len(ids) > 1:
            blocks += torch.split(ids[:-1].int(), max_seq_len)
        labels.append(ids[1:])
    if not blocks:
        raise InvalidInput("data", "has a split without two tokens in a row")
    return TokenRows(torch.cat(blocks), _offsets(blocks), torch.cat(labels), has_token_labels=True)


def _encodings(
    tokenizer: Tokenizer, texts: Iterable[Any], *, is_pretokenized: bool = False
) -> Iterator[Encoding]:
    remaining = iter(texts)
    while some := list(islice(remaining, TEXTS_AT_ONCE)):
        yield from tokenizer.encode_batch(some, is_pretokenized=is_pretokenized)


def _no_labels(places: Sequence[int]) -> Tensor:
    return torch.zeros(len(places), 0)


def _offsets(rows: Sequence[Tensor]) -> Tensor:
    """Where each of the rows begins, and the end."""
    return torch.tensor([0, *map(len, rows)]).cumsum(0)


def _labels_of_first_tokens(encoding: Encoding, tags: Sequence[int]) -> list[int]:
    labels, last = [], None
    for word in encoding.word_ids:
        labels.append(IGNORED if word is None or word == last else tags[word])
        last = word
    return labels


def _put_spaces_before_words(tokenizer: Tokenizer) -> None:
    """A vocabulary of bytes knows a word by the space before it, which a list of words lacks."""
    if isinstance(tokenizer.pre_tokenizer, ByteLevel):
        tokenizer.pre_tokenizer.add_prefix_space = True

"""Small models for who starts from nothing: a folder that a job can be submitted with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from search.errors import InvalidInput
from search.export.folder import write_model
from search.model.checkpoint import TOKENIZER_FILE
from search.model.transformer import ElasticTransformer
from search.shape import ModelShape

END_OF_TEXT = "<|endoftext|>"


def write_fresh_gpt2(
    folder: Path,
    texts: Iterable[str],
    *,
    vocab_size: int = 4096,
    num_layers: int = 6,
    embed_dim: int = 192,
    num_heads: int = 6,
    max_seq_len: int = 256,
    seed: int = 0,
) -> ModelShape:
    """An untrained GPT-2 with a vocabulary of its own, learnt from `texts`.

    Raises:
        InvalidInput: the sizes do not fit each other.
    """
    _check_heads(embed_dim, num_heads)
    tokenizer = train_tokenizer(texts, vocab_size)
    shape = ModelShape(
        family="gpt2",
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=embed_dim // num_heads,
        ffn_dim=4 * embed_dim,
        vocab_size=tokenizer.get_vocab_size(),
        max_seq_len=max_seq_len,
        num_token_types=0,
        num_labels=tokenizer.get_vocab_size(),
        norm_eps=1e-5,
        task="language-modelling",
        is_causal=True,
        norm_first=True,
        activation="gelu_tanh",
        has_tied_head=True,
    )
    _write(folder, shape, seed)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    return shape


def write_fresh_vit(
    folder: Path,
    *,
    image_size: int,
    patch_size: int,
    num_channels: int,
    num_labels: int,
    num_layers: int = 6,
    embed_dim: int = 96,
    num_heads: int = 6,
    ffn_dim: int | None = None,
    seed: int = 0,
) -> ModelShape:
    """An untrained ViT.

    Raises:
        InvalidInput: the sizes do not fit each other.
    """
    _check_heads(embed_dim, num_heads)
    if image_size % patch_size:
        raise InvalidInput(
            "patch_size", f"image_size {image_size} must be a multiple of it, got {patch_size}"
        )
    shape = ModelShape(
        family="vit",
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=embed_dim // num_heads,
        ffn_dim=ffn_dim or 4 * embed_dim,
        vocab_size=0,
        max_seq_len=(image_size // patch_size) ** 2 + 1,
        num_token_types=0,
        num_labels=num_labels,
        task="image-classification",
        norm_first=True,
        image_size=image_size,
        patch_size=patch_size,
        num_channels=num_channels,
        num_prefix_tokens=1,
    )
    _write(folder, shape, seed)
    return shape


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level pairs as GPT-2 has them: any text can be read, and written back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _write(folder: Path, shape: ModelShape, seed: int) -> None:
    torch.manual_seed(seed)
    write_model(ElasticTransformer(shape), folder)


def _check_heads(embed_dim: int, num_heads: int) -> None:
    if embed_dim % num_heads:
        raise InvalidInput(
            "num_heads", f"embed_dim {embed_dim} must be a multiple of it, got {num_heads}"
        )

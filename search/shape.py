"""What an imported transformer is: its sizes, and the choices in which families differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

TASKS = (
    "text-classification",
    "pair-classification",
    "token-classification",
    "sentence-embedding",
    "language-modelling",
    "image-classification",
)
NORMS = ("layer", "rms")
POSITIONS = ("learned", "rotary")
ACTIVATIONS = ("gelu", "gelu_tanh", "silu")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A transformer without its weights; the defaults are those of BERT.

    Attributes:
        vocab_size: 0 for a model that reads images.
        max_seq_len: positions, those before an image's patches included.
        num_labels: outputs of the head; `vocab_size` in language modelling, 0 without a head.
        task: what the head answers, one of `TASKS`.
        queries_per_group: query heads that share one key-value head (grouped-query attention,
            arXiv 2305.13245); 1 is multi-head attention.
        norm_first: whether a block normalises its input (pre-norm) or its sum with it.
        norm: `layer` or `rms`.
        positions: `learned` vectors added once, or `rotary` in every layer (arXiv 2104.09864).
        activation: `gelu` (exact), `gelu_tanh` or `silu`.
        is_gated: whether the feed-forward block multiplies by a gate (GLU, arXiv 2002.05202).
        has_qk_norm: whether queries and keys are normalised by head.
        has_tied_head: whether the head's matrix is the word table.
        word_rank: features of the word table where a matrix spreads them over the stream (ALBERT,
            arXiv 1909.11942, section 3.1); 0: it has the stream's own.
        num_prefix_tokens: learned tokens before an image's patches; the first one answers.
    """

    family: str
    num_layers: int
    embed_dim: int
    num_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int
    max_seq_len: int
    num_token_types: int
    num_labels: int
    norm_eps: float = 1e-12
    task: str = "text-classification"
    queries_per_group: int = 1
    is_causal: bool = False
    norm_first: bool = False
    norm: str = "layer"
    positions: str = "learned"
    rope_theta: float = 10_000.0
    activation: str = "gelu"
    is_gated: bool = False
    has_qkv_bias: bool = True
    has_out_bias: bool = True
    has_ffn_bias: bool = True
    has_qk_norm: bool = False
    has_tied_head: bool = False
    image_size: int = 0
    patch_size: int = 0
    num_channels: int = 0
    num_prefix_tokens: int = 0
    word_rank: int = 0

    @property
    def num_kv_heads(self) -> int:
        return self.num_heads // self.queries_per_group

    @property
    def attention_dim(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def reads_images(self) -> bool:
        return self.patch_size > 0

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2 if self.patch_size else 0

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch of an image."""
        return self.num_channels * self.patch_size**2

    @property
    def has_token_type_input(self) -> bool:
        """Whether inputs say which of two texts a token is of; else every token is of type 0."""
        return self.task == "pair-classification" and self.num_token_types > 1

    @property
    def answers_per_token(self) -> bool:
        return self.task in ("token-classification", "language-modelling")

    @property
    def has_head(self) -> bool:
        """Whether there is a matrix after the last layer, tied or not."""
        return self.task != "sentence-embedding"

    @property
    def has_head_bias(self) -> bool:
        return self.has_head and self.task != "language-modelling"

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if not self.word_rank:
            del found["word_rank"]  # a reader that knows of none reads all others too
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)

"""What an imported transformer is: its sizes, and the choices in which families differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from search.errors import InvalidInput

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
ATTENTIONS = ("softmax", "linear")
# Left out of a shape's JSON where they are as most models have them: a reader that knows of none
# reads all others too.
RARE = ("word_rank", "ffn_rank", "layers_per_group", "attention")


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
        ffn_rank: of the feed-forward matrices, each a product of two; 0: they are whole.
        layers_per_group: neighbours that share their weights (ALBERT, section 3.1), counted from
            the first; 1: each has its own.
        attention: `softmax`, or `linear` in the number of tokens; see `search.model.mixing`.
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
    ffn_rank: int = 0
    layers_per_group: int = 1
    attention: str = "softmax"

    def __post_init__(self) -> None:
        if self.attention == "linear" and self.is_causal:
            raise InvalidInput(
                "shape.attention",
                "must be softmax in a causal model: linear attention reads all tokens at once",
            )

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

    def scores_per_token(self, num_seen: int) -> int:
        """Numbers that a head weighs a token's surroundings by: one for each of the tokens seen,
        or of linear attention one for each of the head's features."""
        return self.head_dim if self.attention == "linear" else num_seen

    def to_dict(self) -> dict[str, Any]:
        usual = {field.name: field.default for field in fields(self) if field.name in RARE}
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)

"""The settings of every technique that a recipe may name. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from search.compress.recipe import StageConfig, stage_kind

IMPORTANCES = ("magnitude", "first-order", "activation")
SPARSITIES = ("magnitude", "wanda", "movement", "second-order")
PATTERNS = ("unstructured", "2:4")
FORMATS = ("int8", "int8-integer", "fp16", "bf16", "int4", "ternary", "binary")
STARTS = ("first", "mean")
MAX_ROUND = 0.3
STUDENT_SIZES = ("num_layers", "embed_dim", "num_heads", "ffn_dim")


@stage_kind("distill", "training")
@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig(StageConfig):
    """Learn from the teacher (DistilBERT, arXiv 1910.01108; TinyBERT, arXiv 1909.10351).

    Attributes:
        epochs: of the training split.
        soft, hard, hidden, attention, relations: weights, see
            `search.training.losses.DistillationLoss`.
        teacher: one of `StageData.teachers`; empty: the one that the data come with.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-4
    temperature: float = 2.0
    soft: float = 0.7
    hard: float = 0.3
    hidden: float = 0.5
    attention: float = 0.0
    relations: float = 0.0
    teacher: str = ""

    def __post_init__(self) -> None:
        self.require(self.epochs > 0, "epochs", "above 0")
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        self.require(self.temperature > 0, "temperature", "above 0")
        for name, weight in self.weights.items():
            self.require(weight >= 0, name, "at least 0")
        learns = self.soft + self.hard + self.attention + self.relations > 0
        self.require(learns, "soft", "above 0, or hard")

    @property
    def weights(self) -> dict[str, float]:
        """Of the parts of the loss."""
        names = ("soft", "hard", "hidden", "attention", "relations")
        return {name: getattr(self, name) for name in names}


@stage_kind("distill-relations", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class DistillRelationsConfig(StageConfig):
    """Learn from texts without labels how a teacher relates their tokens (MiniLMv2, arXiv
    2012.15828, section 3), and become narrower or shallower first if asked to.

    The head learns nothing here: `distill` is for what follows.

    Attributes:
        epochs: of `StageData.unlabelled`.
        teacher: one of `StageData.teachers`; empty: the network as it comes in.
        teacher_layer: the layer whose relations are learnt, 1 the first; 0: the last. The paper
            found one of the upper middle better where the teacher is a large model.
        relation_heads: into how many parts queries, keys and values are cut; 0: as many as the
            teacher has heads, as far as both networks' features can be divided so.
        num_layers, embed_dim, num_heads, ffn_dim: sizes to keep, 0 for all: the student starts
            from slices of the network. Layers are kept at even distances.
    """

    epochs: float = 1.0
    learning_rate: float = 4e-4
    teacher: str = ""
    teacher_layer: int = 0
    relation_heads: int = 0
    num_layers: int = 0
    embed_dim: int = 0
    num_heads: int = 0
    ffn_dim: int = 0

    def __post_init__(self) -> None:
        self.require(self.epochs > 0, "epochs", "above 0")
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        names = ("teacher_layer", "relation_heads", *STUDENT_SIZES)
        for name in names:
            self.require(getattr(self, name) >= 0, name, "at least 0")
        is_smaller = any(getattr(self, name) for name in STUDENT_SIZES)
        self.require(
            bool(self.teacher) or is_smaller,
            "teacher",
            "named where the student keeps all sizes: it would learn from itself",
        )


@stage_kind("prune", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class PruneConfig(StageConfig):
    """Remove whole units: what is left is a smaller dense network, faster everywhere.

    Attributes:
        keep: share of the FLOPs of the network as it comes in.
        importance: of a unit. `first-order` is |gradient x gate| (Michel et al., arXiv
            1905.10650), `magnitude` the norm of its weights, `activation` that of what it says.
        num_layers: layers to keep, 0 for all; those whose loss does least damage go.
        embed_dim: features of the stream to keep, 0 for all.
    """

    keep: float = 0.5
    importance: str = "first-order"
    num_layers: int = 0
    embed_dim: int = 0

    def __post_init__(self) -> None:
        self.require(0 < self.keep <= 1, "keep", "above 0 and at most 1")
        self.require(self.importance in IMPORTANCES, "importance", f"one of {IMPORTANCES}")
        self.require(self.num_layers >= 0, "num_layers", "at least 0")
        self.require(self.embed_dim >= 0, "embed_dim", "at least 0")


@stage_kind("trim-vocabulary", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class TrimVocabularyConfig(StageConfig):
    """Remove the word pieces that the data do not use: a smaller file, as fast as before (a
    language model, whose head says fewer words, is faster too).

    Attributes:
        min_count: how often a piece has to occur in the training split and `StageData.texts` to
            stay. Special tokens and single characters always stay.
    """

    min_count: int = 1

    def __post_init__(self) -> None:
        self.require(self.min_count >= 1, "min_count", "at least 1")


@stage_kind("factorize", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class FactorizeConfig(StageConfig):
    """The word table as a narrower one and a matrix that spreads it over the stream: a smaller
    file, which no word is lost from (ALBERT, arXiv 1909.11942, section 3.1).

    Attributes:
        rank: features of the narrower table, as a share of the stream's.
    """

    rank: float = 0.5

    def __post_init__(self) -> None:
        self.require(0 < self.rank <= 1, "rank", "above 0 and at most 1")


@stage_kind("factorize-ffn", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class FactorizeFfnConfig(StageConfig):
    """Each feed-forward matrix as the product of two narrower ones, chosen for what it really
    reads (SVD-LLM, arXiv 2403.07378, section 3.1). A smaller file; faster too where the rank is
    below four fifths of the stream's width, neurons being four times as many.

    Attributes:
        rank: features between the two, as a share of the stream's.
    """

    rank: float = 0.5

    def __post_init__(self) -> None:
        self.require(0 < self.rank <= 1, "rank", "above 0 and at most 1")


@stage_kind("linearize-attention", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class LinearizeAttentionConfig(StageConfig):
    """Attention whose time grows with the number of tokens rather than with its square (Shen et
    al., arXiv 1812.01243, section 3.2), for long inputs. It weighs differently, so that training
    has to follow, though queries and keys are scaled to be near. Not for causal models."""


@stage_kind("share-layers", "sharing")
@dataclass(frozen=True, kw_only=True, slots=True)
class ShareLayersConfig(StageConfig):
    """Neighbouring layers with the same weights (ALBERT, arXiv 1909.11942, section 3.1): a file
    that holds them once, as slow as before. Training has to follow.

    Attributes:
        group: layers that share, counted from the first; 0: all of them.
        start: what they have before that, the `first` layer's weights or the `mean` of all.
    """

    group: int = 2
    start: str = "first"

    def __post_init__(self) -> None:
        self.require(self.group == 0 or self.group > 1, "group", "0, or at least 2")
        self.require(self.start in STARTS, "start", f"one of {STARTS}")


@stage_kind("prune-and-distill", "structure")
@dataclass(frozen=True, kw_only=True, slots=True)
class PruneAndDistillConfig(StageConfig):
    """Rounds of pruning with distillation between (HomoDistil, arXiv 2302.09632, section 3).

    Importance is measured anew in every round, and no round removes more than 30 % of what it
    finds: what remains never strays far from the teacher.

    Attributes:
        keep: share of the FLOPs in the end.
        epochs: of the training split over all rounds.
    """

    keep: float = 0.5
    importance: str = "first-order"
    epochs: float = 1.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        self.require(0 < self.keep < 1, "keep", "between 0 and 1")
        self.require(self.importance in IMPORTANCES, "importance", f"one of {IMPORTANCES}")
        self.require(self.epochs > 0, "epochs", "above 0")
        self.require(self.learning_rate > 0, "learning_rate", "above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        """What each round keeps of the whole, the last being `keep`."""
        count = 1
        while self.keep ** (1 / count) < 1 - MAX_ROUND:
            count += 1
        return tuple(self.keep ** (done / count) for done in range(1, count + 1))


@stage_kind("sparsify", "sparsity")
@dataclass(frozen=True, kw_only=True, slots=True)
class SparsifyConfig(StageConfig):
    """Set single weights of the layers' matrices to zero: files compress better, and processors
    without kernels for it (all CPUs here) are no faster.

    Attributes:
        sparsity: share of the weights that become zero.
        score: what a weight is worth. `magnitude`; `wanda` (arXiv 2306.11695), times the norm of
            what it multiplies; `movement` (arXiv 2005.07683), whether training moves it away from
            zero; `second-order` (oBERT, arXiv 2203.07259), what the loss would rise by.
        pattern: `2:4` zeroes two of every four neighbours of a row.
        epochs: of distillation, over which the sparsity rises cubically (Zhu and Gupta, arXiv
            1710.01878) to the last third; 0 for one shot.
    """

    sparsity: float = 0.5
    score: str = "magnitude"
    pattern: str = "unstructured"
    epochs: float = 0.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        self.require(0 < self.sparsity < 1, "sparsity", "between 0 and 1")
        self.require(self.score in SPARSITIES, "score", f"one of {SPARSITIES}")
        self.require(self.pattern in PATTERNS, "pattern", f"one of {PATTERNS}")
        is_half = self.pattern == "unstructured" or self.sparsity == 0.5
        self.require(is_half, "sparsity", "0.5 with 2:4")
        self.require(self.epochs >= 0, "epochs", "at least 0")
        is_trained = self.score != "movement" or self.epochs > 0
        self.require(is_trained, "epochs", "above 0 for movement, which training tells")
        self.require(self.learning_rate > 0, "learning_rate", "above 0")


@stage_kind("quantize", "rounding")
@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeConfig(StageConfig):
    """Weights in fewer bits; for `int8` activations too, as runtimes for processors do it.

    Attributes:
        format: `int8` (Q8BERT, arXiv 1910.06188); of weights alone `fp16`, `bf16`, `int4` in
            groups of 32, `ternary` and `binary` with a scale for each row. `int8-integer` (I-BERT,
            arXiv 2101.01321) computes without floats, in simulation: what files and runtimes
            have is in `search.compress.suitability`.
        aware_epochs: of distillation under the rounding before it is made final; 0 for none.
        max_float_layers: of `int8`: how many layers may stay in fp32, those that it harms most,
            as few as `min_agreement` asks for.
        min_agreement: share of answers (of vectors, the mean cosine) that int8 is to have in
            common with the same network in fp32, on rows of the training split.
    """

    format: str = "int8"
    aware_epochs: float = 0.0
    learning_rate: float = 1e-4
    max_float_layers: int = 0
    min_agreement: float = 0.99

    def __post_init__(self) -> None:
        self.require(self.format in FORMATS, "format", f"one of {FORMATS}")
        self.require(self.aware_epochs >= 0, "aware_epochs", "at least 0")
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        most = self.max_float_layers
        self.require(most >= 0, "max_float_layers", "at least 0")
        self.require(most == 0 or self.format == "int8", "max_float_layers", "0 but for int8")
        self.require(0 < self.min_agreement <= 1, "min_agreement", "above 0 and at most 1")

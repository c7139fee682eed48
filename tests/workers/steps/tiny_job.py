"""A job as small as a real one can be: a random BERT of 3 layers, and two words that tell all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
GOOD = ("fine", "lovely", "clever", "warm")
BAD = ("dull", "clumsy", "cold", "stale")
OTHER = ("the", "film", "was", "a", "story", "with", "and", "of", "its", "plot", "scene", "cast")
WORDS = (*SPECIAL, *GOOD, *BAD, *OTHER)

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}


def write_model(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """A folder as Hugging Face names its parts, with random weights."""
    folder.mkdir(parents=True)
    config = {**CONFIG, **config}
    (folder / "config.json").write_text(json.dumps(config))
    _tokenizer().save(str(folder / "tokenizer.json"))
    save_file(_weights(config, seed), folder / "model.safetensors")
    return folder


def write_data(path: Path, *, num_rows: int = 400, seed: int = 0) -> Path:
    """JSON Lines: a row is good or bad by the group that one of its words is from."""
    rng = random.Random(seed)
    lines = []
    for row in range(num_rows):
        words = rng.choices(OTHER, k=rng.randint(2, 9))
        words.insert(rng.randrange(len(words) + 1), rng.choice(GOOD if row % 2 else BAD))
        lines.append(json.dumps({"text": " ".join(words), "label": "good" if row % 2 else "bad"}))
    path.write_text("\n".join(lines) + "\n")
    return path


def spec(model_upload: str, data_upload: str, **parts: Any) -> dict[str, Any]:
    """A job spec over finished uploads; `parts` replace its parts."""
    return {
        "model": {"upload": model_upload},
        "data": {"upload": data_upload},
        "targets": [
            {"budget_ratio": 1.0, "workload": {"seq_len": 32}},
            {"budget_ratio": 0.9, "workload": {"seq_len": 32}},
        ],
        "space": {"num_layers": [1, 2, 3], "num_heads": [1, 2, 4], "ffn_dim": [16, 32, 64]},
        "training": {
            "max_seq_len": 16,
            "batch_size": 32,
            "learning_rate": 4e-3,
            "teacher_epochs": 5,
            "supernet_epochs": 2,
            "shortlist_size": 2,
            "shortlist_steps": 4,
            "distill_epochs": 1,
            "precision": "fp32",
        },
        "search": {"population": 6, "generations": 2, "fidelity_rows": 40},
        # Networks this small are too fast to be timed exactly: one session has to do.
        "measuring": {
            "num_networks": 10,
            "num_holdout": 2,
            "rounds": 3,
            "repeats": 2,
            "max_networks": 5,
            "max_age_hours": 0,
        },
        "robustness": {"rows": 24},
        "seed": 5,
        **parts,
    }


def _tokenizer() -> Tokenizer:
    ids = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return tokenizer


def _weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dim, ffn = config["hidden_size"], config["intermediate_size"]

    def normal(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    weights = {
        "embeddings.word_embeddings.weight": normal(config["vocab_size"], dim),
        "embeddings.position_embeddings.weight": normal(config["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings.weight": normal(config["type_vocab_size"], dim),
        "embeddings.LayerNorm.weight": 1 + normal(dim),
        "embeddings.LayerNorm.bias": normal(dim),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, rows, columns in (
            ("attention.self.query", dim, dim),
            ("attention.self.key", dim, dim),
            ("attention.self.value", dim, dim),
            ("attention.output.dense", dim, dim),
            ("intermediate.dense", ffn, dim),
            ("output.dense", dim, ffn),
        ):
            weights[f"encoder.layer.{layer}.{name}.weight"] = normal(rows, columns)
            weights[f"encoder.layer.{layer}.{name}.bias"] = normal(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"encoder.layer.{layer}.{name}.weight"] = 1 + normal(dim)
            weights[f"encoder.layer.{layer}.{name}.bias"] = normal(dim)
    return weights

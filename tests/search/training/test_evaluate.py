from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training import evaluate as module
from search.training.batches import TokenRows
from search.training.evaluate import evaluate, evaluate_rows, few, predict
from search.training.image_rows import ImageRows
from search.training.rows import Rows
from search.training.tasks import IGNORED
from tests.search import families, small

HALF = SubnetConfig(layers=(0, 2), num_heads=(2, 4), ffn_dim=(32, 16))
TAGS = replace(families.SHAPES["bert"], task="token-classification")
DECODER = families.SHAPES["gpt2"]
VIT = families.SHAPES["vit"]


def token_rows(seed: int = 0, *, num_labels: int, ignored: float = 0.3) -> TokenRows:
    """With a label for every token but some."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 12, (13,), generator=generator)
    num_tokens = int(lengths.sum())
    labels = torch.randint(0, num_labels, (num_tokens,), generator=generator)
    labels[torch.rand(num_tokens, generator=generator) < ignored] = IGNORED
    tokens = torch.randint(1, 64, (num_tokens,), generator=generator).int()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return TokenRows(tokens, offsets, labels, has_token_labels=True)


def image_rows() -> ImageRows:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (9, 1, 8, 8), generator=generator).byte()
    labels = torch.arange(9) % 3
    return ImageRows(pixels, labels, torch.tensor([0.3]), torch.tensor([0.2]), VIT.max_seq_len)


def one_by_one(model: ElasticTransformer, rows: Rows, subnet: SubnetConfig | None) -> Tensor:
    """Every answer's logits, from a forward call for each row."""
    found = []
    for place in range(len(rows)):
        with torch.no_grad():
            logits = model(rows.batch([place]), subnet).logits[0]
        labels = rows.labels_of([place])[0]
        found.append(logits[labels != IGNORED] if labels.dim() else logits[None])
    return torch.cat(found)


def answers_of(rows: Rows) -> Tensor:
    labels = torch.cat([rows.labels_of([place]).flatten() for place in range(len(rows))])
    return labels[labels != IGNORED]


@pytest.mark.parametrize("subnet", [None, HALF])
@pytest.mark.parametrize("kind", ["text", "tags", "images", "language"])
def test_quality_follows_the_logits_of_each_row(kind: str, subnet: SubnetConfig | None) -> None:
    model, rows = {
        "text": (small.network(), small.task(30)),
        "tags": (families.network_of(TAGS), token_rows(num_labels=3)),
        "images": (families.network_of(VIT), image_rows()),
        "language": (families.network_of(DECODER), token_rows(num_labels=64, ignored=0.0)),
    }[kind]
    expected = one_by_one(model, rows, subnet)
    labels = answers_of(rows)
    torch.testing.assert_close(predict(model, rows, subnet), expected, atol=1e-4, rtol=1e-4)
    quality = evaluate(model, rows, subnet)
    assert quality.loss == pytest.approx(float(F.cross_entropy(expected, labels)), abs=1e-5)
    right = float((expected.argmax(-1) == labels).double().mean())
    assert quality.value == pytest.approx(-quality.loss if kind == "language" else right)
    assert quality.metric == ("log_likelihood" if kind == "language" else "accuracy")
    assert quality.num_rows == len(rows)


def test_an_embedding_is_judged_by_its_cosine_to_the_vectors_given() -> None:
    model = families.network_of(replace(small.SHAPE, task="sentence-embedding", num_labels=0))
    rows = small.task(20)
    vectors = predict(model, rows)
    assert vectors.shape == (20, small.SHAPE.embed_dim)
    rows = replace(rows, labels=vectors)
    assert evaluate(model, rows).value == pytest.approx(1.0)
    quality = evaluate(model, rows, small.MIXED)
    cosine = F.cosine_similarity(predict(model, rows, small.MIXED), vectors).mean()
    assert quality.value == pytest.approx(float(cosine)) == pytest.approx(1 - quality.loss)
    assert quality.value < 0.99


def test_rows_without_an_answer_count_for_nothing() -> None:
    model, rows = families.network_of(TAGS), token_rows(num_labels=3)
    silent = rows.select([2, 5])
    silent = replace(silent, labels=torch.full_like(silent.labels, IGNORED))
    scores = evaluate_rows(model, silent)
    assert scores.count.tolist() == scores.loss.tolist() == [0, 0]
    assert evaluate(model, silent).loss == 0


def test_logits_of_a_vocabulary_are_never_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = families.network_of(DECODER), token_rows(num_labels=64)
    whole = evaluate(model, rows)
    sizes = []
    answer = ElasticTransformer.answer

    def noting(*args: object) -> Tensor:
        logits: Tensor = answer(*args)  # type: ignore[arg-type]
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(ElasticTransformer, "answer", noting)
    monkeypatch.setattr(module, "MAX_LOGITS", 3 * 11 * 64)
    in_parts = evaluate(model, rows)
    assert max(sizes) <= 3 * 11 * 64
    assert in_parts.loss == pytest.approx(whole.loss)
    assert len(few(rows, DECODER, 100)) == 3

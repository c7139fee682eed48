"""A trained model of each family with its data: what compression is tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.kept import Kept
from benchmarks.local_device import weight_bits
from benchmarks.pipeline import SEED, Effort, SmallJob
from benchmarks.small_jobs import FASHION, digits, fashion, movie_reviews, source_code
from benchmarks.small_search import num_steps, sort_units_, train
from examples.movie_reviews.prepare import prepare_data
from predictors.workload import Workload
from search.compress.distill import TaskData
from search.compress.network import Compressed, StageData, rows_read_by
from search.compress.recipe import StageConfig
from search.data.dataset import read_dataset
from search.model.checkpoint import MAX_TOKENIZER_BYTES, TOKENIZER_FILE, read_json
from search.model.importing import import_model
from search.shape import ModelShape
from search.space import SearchSpace
from search.training.encoding import encode_splits
from search.training.loop import load_weights_, save_weights
from search.training.order import BatchOrder
from search.training.rows import Rows
from search.training.supernet import finetuning_losses
from search.training.teacher import teacher_of

NUM_BATCHES = 6  # on which importance is measured
REPORTED_ROWS = 256  # of the validation split, for the reports of stages


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model that has learnt its task, its units sorted by importance.

    Attributes:
        whole: the model as recipes find it; it is the teacher too.
        space: of its subnets, the layers ranked.
        data: what stages learn from; `effort.distill_epochs` is what each recipe may train.
    """

    job: SmallJob
    whole: Compressed
    space: SearchSpace
    rows: Mapping[str, Rows]
    data: StageData

    @property
    def shape(self) -> ModelShape:
        return self.job.shape

    @property
    def effort(self) -> Effort:
        return self.job.effort

    def rows_for(self, network: Compressed, split: str) -> Rows:
        """A split in the ids of the network's own vocabulary."""
        return rows_read_by(network, self.rows[split], self.data.tokenizer)

    def data_of(self, stages: Sequence[StageConfig]) -> StageData:
        """What they learn from; where none asks for it, the teacher tells nothing of attention."""
        if not any(getattr(stage, "attention", 0.0) for stage in stages):
            return self.data
        task = self.data.task
        target_of = teacher_of(self.whole.model, task.train, attention=True)
        return replace(self.data, task=replace(task, target_of=target_of))


def movies(folder: Path, *, is_quick: bool) -> SmallJob:
    """MiniLM on all rated movie sentences, 64 tokens."""
    job = movie_reviews(folder, is_quick=is_quick)
    effort = replace(
        job.effort, max_seq_len=64, teacher_epochs=1.5, supernet_epochs=1, distill_epochs=0.5
    )
    if is_quick:
        effort = replace(effort, teacher_epochs=0.5, distill_epochs=0.15, supernet_epochs=0.15)
    dataset = job.dataset if is_quick else read_dataset(prepare_data(folder))
    return replace(job, name="bert", dataset=dataset, workload=Workload(seq_len=64), effort=effort)


def pictures(folder: Path, *, is_quick: bool) -> SmallJob:
    """A small ViT on pictures of clothes, on digits where those are not installed."""
    job = (fashion if FASHION.is_dir() else digits)(folder, is_quick=is_quick)
    epochs = 2 * job.effort.teacher_epochs
    return replace(job, effort=replace(job.effort, teacher_epochs=epochs))


def source(folder: Path, *, is_quick: bool) -> SmallJob:
    """A small GPT on the standard library's modules."""
    job = source_code(folder, is_quick=is_quick)
    epochs = 1.5 * job.effort.teacher_epochs
    return replace(job, effort=replace(job.effort, teacher_epochs=epochs, distill_epochs=1))


SUBJECTS: Mapping[str, Callable[..., SmallJob]] = {
    "bert": movies,
    "vit": pictures,
    "decoder": source,
}


def prepare(name: str, state: Path, *, is_quick: bool) -> Subject:
    """Trains the model, or loads what an earlier run left in `state`."""
    state.mkdir(parents=True, exist_ok=True)
    job = SUBJECTS[name](state, is_quick=is_quick)
    effort, shape = job.effort, job.shape
    splits = job.dataset.split(SEED)
    encoded = encode_splits(job.dataset, splits, job.folder, shape, max_seq_len=effort.max_seq_len)
    rows = dict(encoded)
    model = import_model(job.folder, shape, SEED)
    model.dropout, model.weight_bits = effort.dropout, weight_bits()
    kept, path = Kept(state), state / "teacher.safetensors"
    if not path.is_file():
        order = BatchOrder(rows["train"], effort.batch_size, SEED)
        total = num_steps(effort.teacher_epochs, order)
        train(model, finetuning_losses(model, order), total, effort.learning_rate)
        batch_size = effort.batch_size
        space = sort_units_(model, rows["train"], rows["search"], batch_size=batch_size)
        kept.save_figures("space", space.to_dict())
        save_weights(model, path)
    load_weights_(model, path)
    space_found = kept.figures("space")
    assert space_found is not None
    task = TaskData(
        rows["train"],
        rows["validation"].spread(REPORTED_ROWS),
        teacher_of(model, rows["train"]),
        effort.batch_size,
    )
    return Subject(
        job=job,
        whole=Compressed.whole(model.eval()),
        space=SearchSpace.from_dict(space_found),
        rows=rows,
        data=StageData(
            task=task,
            seq_len=job.workload.seq_len,
            seed=SEED,
            num_batches=2 if is_quick else NUM_BATCHES,
            unlabelled=rows["train"],
            tokenizer=(
                None
                if shape.reads_images
                else read_json(job.folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
            ),
        ),
    )

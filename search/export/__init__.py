"""Networks as files: `load_subnet` reads a folder that a job wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.model.transformer import ElasticTransformer
    from search.space import SubnetConfig


def load_subnet(folder: str | Path) -> tuple[ElasticTransformer, SubnetConfig]:
    """The network of a folder, whether its layers are alike or not, and its sizes.

    `model, subnet = load_subnet("downloads/target-0")`; one that was trained for int8 answers
    under its rounding, `model(batch, subnet.with_precision("fp32"))` as transformers does.

    Raises:
        InvalidInput: Snugnet wrote no such folder; with the file's name as the field.
    """
    # Here and not above: who only builds ONNX graphs needs no torch.
    from search.export.loading import read_subnet

    return read_subnet(Path(folder))

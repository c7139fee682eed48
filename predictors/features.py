"""Physical terms of a subnet: what a layer-by-layer cost model of its latency adds up.

Sums over layers, never averages: two layers of 12 and 4 heads do the work of two with 8. For one
shape and workload every product of a width with tokens or `embed_dim` is the same column but for
its scale, so that one term stands for a matrix and all that is proportional to it. The square
roots give a narrow matrix a higher cost per multiply-add, as kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from predictors.workload import Workload
from search.space import ModelShape, SubnetConfig

Terms = npt.NDArray[np.float64]

# Each term with the part of the network that its cost is shown as.
TERM_PARTS = {
    "fixed": "embeddings_and_head",
    "norm_elements": "norms_and_residuals",
    "attention_macs": "attention",
    "attention_sqrt": "attention",
    "ffn_macs": "ffn",
    "ffn_sqrt": "ffn",
}
TERM_NAMES = tuple(TERM_PARTS)


def latency_terms(shape: ModelShape, workload: Workload, subnets: Sequence[SubnetConfig]) -> Terms:
    """The terms of each subnet, (len(subnets), len(TERM_NAMES)); none depends on precision."""
    return np.array([_terms(shape, workload, subnet) for subnet in subnets]).reshape(
        len(subnets), len(TERM_NAMES)
    )


def _terms(shape: ModelShape, workload: Workload, subnet: SubnetConfig) -> list[float]:
    tokens, dim = workload.num_tokens, shape.embed_dim
    heads, ffn = np.array(subnet.num_heads, float), np.array(subnet.ffn_dim, float)
    inner = heads * shape.head_dim
    attention_macs = inner * tokens * (4 * dim + 2 * workload.seq_len)
    ffn_macs = 2 * ffn * tokens * dim
    return [
        1.0,
        float(subnet.num_layers * tokens * dim),
        float(attention_macs.sum()),
        float(np.sqrt(attention_macs).sum()),
        float(ffn_macs.sum()),
        float(np.sqrt(ffn_macs).sum()),
    ]

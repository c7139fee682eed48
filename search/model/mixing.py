"""What tokens take from each other, and how they know their places. Shapes as in `transformer`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from search.shape import ModelShape


def softmax_attention(q_BHTN: Tensor, k_BHSN: Tensor, v_BHSN: Tensor, bias_B1TS: Tensor) -> Tensor:
    """(B, H, T, N): each token compared with every other."""
    bias_B1TS = bias_B1TS.to(q_BHTN.dtype)
    return F.scaled_dot_product_attention(q_BHTN, k_BHSN, v_BHSN, attn_mask=bias_B1TS)


def linear_attention(q_BHTN: Tensor, k_BHSN: Tensor, v_BHSN: Tensor, bias_B1TS: Tensor) -> Tensor:
    """(B, H, T, N): in time and memory linear in the number of tokens (efficient attention, Shen
    et al., arXiv 1812.01243, section 3.2).

    Each of a head's N features takes a mean of all values, weighted by the softmax of the keys
    over the tokens; each query mixes these N means, weighted by its own softmax over the features.
    Weights of a token thus sum to one, as softmax's do. All tokens see the same ones: not for
    causal models.
    """
    bias_B1S1 = bias_B1TS.to(k_BHSN.dtype).transpose(-1, -2)
    shares_BHSN = (k_BHSN + bias_B1S1).softmax(2)
    means_BHNN = shares_BHSN.transpose(-1, -2) @ v_BHSN
    return q_BHTN.softmax(-1) @ means_BHNN


def rotary_angles(
    shape: ModelShape, start: int, num_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (T, N), of RoFormer (arXiv 2104.09864, section 3.2.2)."""
    exponents = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    places = torch.arange(start, start + num_tokens, device=device).float()
    angles = torch.outer(places, shape.rope_theta**-exponents)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotated(x_BHTN: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs of features half a head apart are turned by their angles."""
    cos_TN, sin_TN = rotary
    first, second = x_BHTN.chunk(2, -1)
    return x_BHTN * cos_TN + torch.cat([-second, first], -1) * sin_TN

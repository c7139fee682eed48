"""Images with a label each, as a model reads them: normalised numbers, cut into patches later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from search.model.transformer import Batch
from search.training.rows import spread_places


@dataclass(frozen=True, slots=True)
class ImageRows:
    """Images of one size.

    Attributes:
        mean: of each channel, of values from 0 to 1, subtracted; then `std` divides.
        num_tokens: of an image, its patches and the prefix.
    """

    pixels: Tensor  # (rows, channels, height, width) uint8
    labels: Tensor  # (rows,) int64; (rows, 0) where nobody knows them
    mean: Tensor  # (channels,) float32
    std: Tensor  # (channels,) float32
    num_tokens: int

    @classmethod
    def load(cls, path: Path) -> Self:
        stored = load_file(path)
        num_tokens = int(stored.pop("num_tokens"))
        return cls(**stored, num_tokens=num_tokens)

    def save(self, path: Path) -> None:
        stored = {name: getattr(self, name) for name in ("pixels", "labels", "mean", "std")}
        save_file(stored | {"num_tokens": torch.tensor(self.num_tokens)}, path)

    def preprocessor_config(self) -> dict[str, Any]:
        """What preprocessor_config.json says of images that are to be read alike."""
        _, _, height, width = self.pixels.shape
        return {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": self.mean.tolist(),
            "image_std": self.std.tolist(),
            "size": {"height": height, "width": width},
        }

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        return torch.full((len(self),), self.num_tokens)

    def batch(self, places: Sequence[int]) -> Batch:
        values = self.pixels[list(places)].float() / 255
        pixels = (values - self.mean[:, None, None]) / self.std[:, None, None]
        return Batch(pixels, torch.ones(len(places), self.num_tokens, dtype=torch.int64))

    def labels_of(self, places: Sequence[int]) -> Tensor:
        return self.labels[list(places)]

    def select(self, places: Sequence[int]) -> Self:
        chosen = list(places)
        return type(self)(
            self.pixels[chosen], self.labels[chosen], self.mean, self.std, self.num_tokens
        )

    def spread(self, count: int) -> Self:
        return self if count >= len(self) else self.select(spread_places(len(self), count))

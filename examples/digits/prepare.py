"""Handwritten digits, and a small ViT that has learnt nothing yet.

The 1,797 pictures of 8 x 8 (UCI ML, Optical Recognition of Handwritten Digits, CC BY 4.0) come
with scikit-learn. A ViT of four layers gets random weights: the job's first training teaches it.

python -m examples.digits.prepare [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from examples.folder import copy_job_files, folder_argument
from search.model.fresh import write_fresh_vit

BRIGHTEST = 16  # of scikit-learn's pictures


def prepare(folder: Path) -> None:
    """`digits.npz` with `images` and `labels`, and the folder `model`."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / BRIGHTEST)).round().astype(np.uint8)
    np.savez_compressed(folder / "digits.npz", images=pixels, labels=labels)
    if not (folder / "model").exists():
        write_fresh_vit(
            folder / "model",
            image_size=8,
            patch_size=2,
            num_channels=1,
            num_labels=10,
            num_layers=4,
            embed_dim=64,
            num_heads=4,
        )


if __name__ == "__main__":
    wanted = folder_argument(__doc__, "digits")
    prepare(wanted)
    copy_job_files(Path(__file__).parent, wanted)

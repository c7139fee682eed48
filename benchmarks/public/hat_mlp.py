"""HAT's own latency predictor, as its code trains it (Wang et al. 2020, section 3.2).

Three hidden layers of 400 over ten averaged features; squared error of the latency divided by a
constant; Adam at 1e-5 for 5,000 steps of 128 rows; the weights with the least validation error,
on a ninth of the rows that it is given.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch import nn

from benchmarks.public.table import Floats, Ints

HIDDEN = 400
NUM_STEPS = 5000
BATCH = 128
LEARNING_RATE = 1e-5
VALIDATE_EVERY = 250
VALIDATION_SHARE = 9


def predict_with_mlp(
    features: Floats,
    measured_ms: Floats,
    rows: Ints,
    held_out: Ints,
    *,
    seed: int = 0,
    num_steps: int = NUM_STEPS,
) -> Floats:
    """(len(held_out),) ms by a network of `rows`.

    The constant is the mean latency of the rows: HAT sets it by hand for each device.
    """
    torch.manual_seed(seed)
    norm = float(measured_ms[rows].mean())
    inputs = torch.tensor(features, dtype=torch.float32)
    targets = torch.tensor(measured_ms / norm, dtype=torch.float32)
    num_validation = max(1, len(rows) // VALIDATION_SHARE)
    validation, fitted = torch.tensor(rows[:num_validation]), torch.tensor(rows[num_validation:])
    network = _network(features.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best, best_error = copy.deepcopy(network.state_dict()), float("inf")
    for step in range(1, num_steps + 1):
        chosen = fitted[torch.randint(len(fitted), (min(BATCH, len(fitted)),))]
        loss = nn.functional.mse_loss(network(inputs[chosen]).squeeze(1), targets[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % VALIDATE_EVERY == 0 or step == num_steps:
            error = _error(network, inputs[validation], targets[validation])
            if error < best_error:
                best, best_error = copy.deepcopy(network.state_dict()), error
    network.load_state_dict(best)
    with torch.inference_mode():
        predicted = network(inputs[torch.tensor(held_out)]).squeeze(1)
    return np.asarray(predicted.numpy(), dtype=np.float64) * norm


def _network(num_features: int) -> nn.Sequential:
    widths = [num_features, HIDDEN, HIDDEN, HIDDEN]
    layers: list[nn.Module] = []
    for width, wider in itertools.pairwise(widths):
        layers += [nn.Linear(width, wider), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, 1))


def _error(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(nn.functional.mse_loss(network(inputs).squeeze(1), targets))

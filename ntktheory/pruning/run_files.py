"""A pruning run on disk, so that it can be continued: masks, rounds and the generator's state.

One safetensors file: a bool tensor per layer, the state of the generator, and as metadata what run it is
and the history. A run is known by its settings and by digests of the model's tensors and of the batch:
a file is continued by the run that began it and by no other.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntktheory.checks import complaint
from ntktheory.functional import FunctionalModel
from ntktheory.pruning.mask_files import read_tensors, versions, write_tensors
from ntktheory.pruning.rounds import Round

FORMAT = "ntktheory pruning run 1"
MASK, GENERATOR = "mask/", "generator"

Run = dict[str, Any]


def describe_run(settings: Mapping[str, Any], net: FunctionalModel) -> Run:
    """Return what identifies a run, made of what JSON knows.

    Args:
        settings: Scorer, density and so on; tensors in it become digests.
        net: The model.

    Returns:
        The settings, and the shapes and a digest of the model's tensors.
    """
    shapes = {name: list(net.params[name].shape) for name in net.prunable}
    tensors = {**net.params, **net.buffers}
    run = {**settings, "model shapes": shapes, "model tensors": tensors}
    return {key: _described(value) for key, value in run.items()}


def save_run(
    path: Path,
    run: Run,
    masks: Mapping[str, Tensor],
    history: tuple[Round, ...],
    generator: torch.Generator | None,
) -> None:
    """Write a run after a round; the file appears whole or not at all."""
    tensors = {MASK + name: mask for name, mask in masks.items()}
    if generator is not None:
        tensors[GENERATOR] = generator.get_state()
    said = {
        "format": FORMAT,
        "run": json.dumps(run),
        "history": json.dumps([asdict(entry) for entry in history]),
        "versions": json.dumps(versions()),
    }
    write_tensors(path, tensors, said)


def load_run(
    path: Path, run: Run, generator: torch.Generator | None
) -> tuple[dict[str, Tensor], tuple[Round, ...]]:
    """Read a run, and set the generator to where it was.

    Args:
        path: Its file.
        run: What it must be, of ``describe_run``.
        generator: Its generator.

    Returns:
        Masks, on the CPU, and history.

    Raises:
        ValueError: If the file cannot be read, is no run, or that of another run; the message says
            what differs.
    """
    tensors, said = read_tensors(path, "resume")
    if said.get("format") != FORMAT:
        raise ValueError(
            complaint(
                "resume",
                "a file that prune wrote",
                f"{path}, {said.get('format', 'of another kind')}",
                "Name another file; this one was left alone.",
            )
        )
    stored = json.loads(said["run"])
    differing = [key for key in {**stored, **run} if stored.get(key) != run.get(key)]
    if differing:
        texts = [f"{key} {_short(stored.get(key))} for {_short(run.get(key))}" for key in differing]
        raise ValueError(
            complaint(
                "resume",
                "a file of this run",
                f"{path} with {'; '.join(texts)}",
                "Name another file, or use the settings of this one.",
            )
        )
    if generator is not None:
        generator.set_state(tensors[GENERATOR])
    masks = {
        name.removeprefix(MASK): t.bool() for name, t in tensors.items() if name.startswith(MASK)
    }
    return masks, tuple(Round(**entry) for entry in json.loads(said["history"]))


def _described(value: Any) -> Any:
    """Return a value as JSON knows it: tensors as digests, functions by name."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        data = np.ascontiguousarray(plain.reshape(-1).view(torch.uint8).numpy())
        digest = hashlib.sha256(data.data).hexdigest()
        return [str(value.dtype), list(value.shape), digest[:16]]
    if isinstance(value, Mapping):
        return {str(key): _described(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_described(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:60]} …"

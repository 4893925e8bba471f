"""The samples of a dataset that look most like an image of one's own, by the features that a run reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.data.decoding import pillow_warnings
from engine.data.images import READ_ERRORS, decode, fit, one_large_at_a_time, open_image, reason
from engine.data.loader import load_split, normalization, to_float
from engine.errors import NotFoundError, SourceError, SpecError, StorageError
from engine.features.backbones import find_backbone
from engine.features.embedding import embed, ready
from engine.features.own_file import is_own_file
from engine.features.penultimate import compute_features
from engine.features.stored import open_stored, read_about
from engine.queries.connection import best_run, connected, source_run
from engine.spec import RunSpec, spec_from_json
from engine.store.verified import file_of
from engine.store.workspace import Workspace
from engine.training.kept import load_network
from engine.training.own_models import allow_trusted

LARGEST_BYTES = 1 << 28
BLOCK_ROWS = 1 << 14

Rows = np.ndarray[Any, np.dtype[np.float32]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def similar_samples(
    workspace: Workspace, dataset: str, image: Path, run_id: str | None = None, n: int = 60
) -> tuple[str, list[tuple[int, float]]]:
    """The n samples nearest to an image by cosine similarity of a run's features: exact, read block by block.

    A run on a backbone's stored features compares with all samples, one on its own network's with the training samples.

    Args:    image: a file; run_id: None = the run to be trusted most
    Returns: the run; (sample id, similarity) of each, the nearest first
    Raises:  SourceError for what is no image; SpecError for a run whose features cannot be computed of an image; NotFoundError
             when no run has scores
    """
    if n < 1:
        raise SpecError(f"--n is {n}; allowed: 1 and more")
    with connected(workspace, dataset) as connection:
        found = run_id or best_run(connection)
        if not found:
            raise NotFoundError(f"no run of '{dataset}' has features; make one: winnow run {dataset}")
        trained = source_run(connection, "epochs", found)
    spec = spec_from_json(workspace.read_spec(found)["spec"])
    if not isinstance(spec, RunSpec):
        raise SpecError(
            f"run {found} has no network that an image could be shown to; choose one of winnow run {dataset}"
        )
    if spec.features:
        own = _by_backbone(workspace, dataset, found, spec, image)
        blocks = _stored_blocks(open_stored(workspace, dataset, spec.features_hash).numpy())
    else:
        own = _by_network(workspace, dataset, trained, image)
        blocks = _published_blocks(workspace.published_dir(trained))
    return found, _nearest(own, blocks, n)


def _by_backbone(workspace: Workspace, dataset: str, run_id: str, spec: RunSpec, image: Path) -> Rows:
    if is_own_file(spec.features):
        raise SpecError(
            f"run {run_id} reads features from the file {Path(spec.features).name}, which has none of this image; choose a "
            f"run on a backbone: winnow run {dataset} --features efficientnet_lite0"
        )
    backbone = find_backbone(spec.features)
    if backbone.key != spec.features_hash:
        raise SpecError(f"the weights of {spec.features} are others than those of run {run_id}; run it again")
    precision = str(read_about(workspace, dataset, spec.features_hash).get("precision", "float32"))
    embedding = replace(ready(backbone, torch.device("cpu")), precision=precision)
    pixels = torch.from_numpy(_pixels(image, (3, backbone.side, backbone.side)))
    return np.asarray(embed(embedding, pixels[None], lambda share: None)[0].numpy())


def _by_network(workspace: Workspace, dataset: str, trained: str, image: Path) -> Rows:
    spec = spec_from_json(workspace.read_spec(trained)["spec"])
    training = spec.training if isinstance(spec, RunSpec) else None
    if training is None:
        raise SpecError(
            f"run {trained} has no network that an image could be shown to; choose one of winnow run {dataset}"
        )
    samples = load_split(workspace, dataset, "train")
    shape = samples.shape
    if len(shape) != 3:
        raise SpecError(f"dataset '{dataset}' holds vectors of shape {shape}, and no images; search by sample instead")
    allow_trusted(workspace, training.model)
    folder = workspace.published_dir(trained)
    network = load_network(folder, training, shape, samples.classes, 0, training.epochs)
    given = to_float(torch.from_numpy(_pixels(image, shape))[None], *normalization(samples))
    with torch.inference_mode():
        features: Tensor = compute_features(network, given)
    return np.asarray(features[0].float().numpy())


def _pixels(image: Path, shape: tuple[int, ...]) -> Pixels:
    """An image as the network takes it, read with the limits of ingest."""
    try:
        if image.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"larger than {LARGEST_BYTES >> 20} MiB")
        with pillow_warnings(), open_image(image) as opened, one_large_at_a_time(opened):
            return np.array(fit(decode(opened, 2 * max(shape[1:])), shape))  # a copy, which torch may write to
    except READ_ERRORS as error:
        raise SourceError(f"{image} cannot be read as an image: {reason(error)}") from error


def _stored_blocks(rows: Rows) -> Iterator[tuple[int, Rows]]:
    for first in range(0, len(rows), BLOCK_ROWS):
        yield first, np.asarray(rows[first : first + BLOCK_ROWS])


def _published_blocks(folder: Path) -> Iterator[tuple[int, Rows]]:
    """The features that a run's own network gave for the training samples at the end."""
    path = file_of(folder, "features.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            rows = file.get_slice("features")
            count = int(rows.get_shape()[0])
            for first in range(0, count, BLOCK_ROWS):
                yield first, np.asarray(rows[first : min(count, first + BLOCK_ROWS)], np.float32)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged or not there; remove that run and run it again") from error


def _nearest(own: Rows, blocks: Iterator[tuple[int, Rows]], n: int) -> list[tuple[int, float]]:
    """The n rows with the largest cosine to one's own, of blocks with their first row's id; ties by id."""
    unit = own / max(float(np.linalg.norm(own)), 1e-30)
    ids, best = np.empty(0, np.int64), np.empty(0, np.float32)
    for first, rows in blocks:
        if rows.shape[1:] != own.shape:
            raise StorageError(f"features of {rows.shape[1:]} numbers are stored, of this image there are {own.shape}")
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        cosine = (rows @ unit) / np.maximum(lengths, 1e-30)
        ids = np.concatenate([ids, np.arange(first, first + len(rows))])
        best = np.concatenate([best, cosine.astype(np.float32)])
        kept = np.lexsort((ids, -best))[:n]
        ids, best = ids[kept], best[kept]
    return [(int(i), min(1.0, max(-1.0, float(value)))) for i, value in zip(ids, best, strict=True)]

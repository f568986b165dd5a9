"""Search: the vectors of many examples, and those of them that fit a query best."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .batches import collate, inputs_of, numericalize, to_device
from .contrastive import DualEncoder
from .data.dataset import DataSet

BATCH_SIZE = 64


@torch.no_grad()
def embed(
    model: DualEncoder, vocabularies: dict, examples: Sequence[dict], modality: str
) -> Tensor:
    """The vectors of one modality of the examples, (N, D), on the CPU.

    examples: such as a data set; or [{"target": words}, …] for sentences.
    modality: "image", "target" or "sound".

    Puts the model into eval mode.
    """
    model.eval()
    device = model.log_scale.device
    vectors = [torch.empty(0, model.projection[modality].out_features)]
    for first in range(0, len(examples), BATCH_SIZE):
        batch = []
        for i in range(first, min(first + BATCH_SIZE, len(examples))):
            example = {modality: examples[i][modality]}
            batch.append(numericalize(example, vocabularies))
        inputs = to_device(collate(batch), device)
        vectors.append(model.embed(modality, *inputs_of(inputs, modality)).cpu())
    return torch.cat(vectors)  # (N, D)


def similarities(model: DualEncoder, vocabularies: dict, data: DataSet) -> Tensor:
    """The cosine of each of all Q references and the picture of each of the G examples, (Q, G).

    If the model hears sounds instead of reading, each example has one reference, and its sound.
    """
    pictures = data.without("sound")  # which would otherwise be spoken for nothing
    image_vectors = embed(model, vocabularies, pictures, "image")  # (G, D)
    if "sound" in model.encoders:
        sounds = data.without("image")
        return embed(model, vocabularies, sounds, "sound") @ image_vectors.T
    sentences = [{"target": words} for references in data.references for words in references]
    return embed(model, vocabularies, sentences, "target") @ image_vectors.T


def search(
    queries: Tensor, vectors: Tensor | np.ndarray, k: int, chunk_size: int = 16384
) -> tuple[Tensor, Tensor]:
    """Find the k vectors with the largest inner product with each query, the best one first.

        scores = queries @ vectors.T,   sorted, and of each row the first k

    The search is exact, and its memory does not grow with N. The product is computed for one chunk
    of vectors at a time, in float32, and only the k best of each chunk are kept. Vectors with equal
    scores are in the order of their indices.

    queries: (Q, D).
    vectors: (N, D), a tensor or a memory-mapped array; float16 takes half the space of float32.
    k: the number of results; with fewer vectors, N.
    chunk_size: the number of vectors that are converted to float32 at a time.

    Returns scores (Q, k) float32 and indices (Q, k), on the device of the queries.
    Raises ValueError if shapes do not fit, k or chunk_size is below 1, or a score is NaN.
    Source: the flat index of Johnson et al. 2017 (faiss).
    """
    if queries.dim() != 2 or vectors.ndim != 2 or queries.size(1) != vectors.shape[1]:
        shapes = f"{tuple(queries.shape)} and {tuple(vectors.shape)}"
        raise ValueError(f"queries and vectors need shapes (Q, D) and (N, D), not {shapes}")
    if min(k, chunk_size) < 1:
        raise ValueError(f"k and chunk_size must be at least 1, not {k} and {chunk_size}")
    queries = queries.float()
    Q, D = queries.shape
    N = len(vectors)
    buffer = queries.new_empty(min(chunk_size, N), D)
    best = queries.new_empty(Q, 0)
    indices = best.long()
    for first in range(0, N, chunk_size):
        chunk = vectors[first : first + chunk_size]
        if not isinstance(chunk, Tensor):
            chunk = torch.from_numpy(np.array(chunk))  # read from the file now
        converted = buffer[: len(chunk)].copy_(chunk)  # (chunk, D)
        scores, where = _largest(queries @ converted.T, k)  # each (Q, k)
        best = torch.cat([best, scores], dim=1)  # (Q, 2 k), equal ones in the order of indices
        indices = torch.cat([indices, first + where], dim=1)  # (Q, 2 k)
        best, order = best.sort(dim=1, descending=True, stable=True)
        best = best[:, :k]  # (Q, k)
        indices = indices.gather(1, order[:, :k])  # (Q, k)
    if best.isnan().any():  # NaN is sorted to the front
        raise ValueError("a score is NaN: the queries or the vectors hold NaN")
    return best, indices


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, in the order of their indices: values and indices, each (Q, k)."""
    k = min(k, scores.size(1))
    values, indices = scores.topk(k)  # each (Q, k)
    has_ties = (scores >= values[:, -1:]).sum(1) > k  # topk may choose any of them
    if has_ties.any():
        _, order = scores.sort(dim=1, descending=True, stable=True)
        indices = order[:, :k]  # (Q, k)
    indices, _ = indices.sort(dim=1)
    return scores.gather(1, indices), indices

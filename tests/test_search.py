"""Search against brute force and torch.topk: chunks, ties, float16, few vectors and bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmscratch.contrastive import DualEncoder
from mmscratch.recurrent import LSTMEncoder
from mmscratch.search import embed, search
from mmscratch.text import EOS, Vocabulary
from mmscratch.vision import resnet_encoder


def brute_force(queries, vectors, k):
    """The k best of each query: the larger score first, then the lower index."""
    scores = []
    indices = []
    for row in (queries.double() @ vectors.double().T).tolist():
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        indices.append(order)
        scores.append([row[i] for i in order])
    return scores, indices


def small_integers(generator, *shape):
    """float16 numbers whose products are exact, and often equal."""
    return torch.randint(-2, 3, shape, generator=generator).half()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(0, 5), st.integers(0, 41), st.integers(1, 3)),
    k=st.integers(1, 13),
    chunk_size=st.integers(1, 53),
)
def test_search_is_that_of_brute_force_with_ties_in_the_order_of_indices(
    seed, sizes, k, chunk_size
):
    Q, N, D = sizes
    generator = torch.Generator().manual_seed(seed)
    queries = small_integers(generator, Q, D)
    vectors = small_integers(generator, N, D)
    scores, indices = search(queries, vectors, k, chunk_size)
    assert scores.shape == indices.shape == (Q, min(k, N))
    assert (scores.dtype, indices.dtype) == (torch.float32, torch.long)
    assert (scores.tolist(), indices.tolist()) == brute_force(queries, vectors, k)


@pytest.mark.parametrize("chunk_size", [1, 11, 101, 103, 16384])
def test_search_agrees_with_topk_of_the_whole_product(chunk_size):
    torch.manual_seed(0)
    queries = torch.randn(7, 13)
    vectors = torch.randn(103, 13)
    assert_close(search(queries, vectors, 17, chunk_size), tuple((queries @ vectors.T).topk(17)))


def test_half_precision_vectors_are_searched_in_single_precision():
    torch.manual_seed(0)
    queries = torch.randn(5, 61)
    vectors = torch.randn(211, 61).half()
    expected = search(queries, vectors.float(), 19)
    found = search(queries, vectors, 19)
    assert_close(found, expected, rtol=0, atol=0)
    in_half_precision = (queries.half() @ vectors.T).topk(19)
    assert (found[0] - in_half_precision.values).abs().max() > 1e-4, "which would be too coarse"


def test_a_memory_mapped_file_is_searched_like_a_tensor(tmp_path):
    torch.manual_seed(0)
    queries = torch.randn(3, 7)
    vectors = torch.randn(53, 7).half()
    np.save(tmp_path / "vectors.npy", vectors.numpy())
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert_close(search(queries, mapped, 5, 11), search(queries, vectors, 5, 11))


def test_search_reads_one_chunk_at_a_time_and_changes_nothing():
    class Recorder(np.ndarray):
        lengths = []

        def __getitem__(self, index):
            rows = np.asarray(self)[index]
            self.lengths.append(len(rows))
            return rows

    vectors = np.arange(34, dtype=np.float16).reshape(17, 2)
    queries = torch.ones(1, 2)
    _, indices = search(queries, vectors.view(Recorder), 2, chunk_size=5)
    assert indices.tolist() == [[16, 15]]
    assert sum(Recorder.lengths) == 17 and max(Recorder.lengths) <= 5
    assert vectors.ravel().tolist() == list(range(34)) and queries.tolist() == [[1, 1]]


def test_infinite_scores_are_ordered_like_others():
    vectors = torch.tensor([[1.0], [-torch.inf], [torch.inf], [2.0]])
    scores, indices = search(torch.ones(1, 1), vectors, 4, chunk_size=3)
    assert indices.tolist() == [[2, 3, 0, 1]]


@pytest.mark.parametrize("where", [0, 5, 6, 12])
def test_nan_is_refused_wherever_it_is(where):
    vectors = torch.randn(13, 3)
    vectors[where, 1] = torch.nan
    with pytest.raises(ValueError):
        search(torch.randn(2, 3), vectors, 2, chunk_size=6)


def test_shapes_that_do_not_fit_and_numbers_below_1_are_refused():
    queries = torch.ones(2, 3)
    for vectors, k, chunk_size in ((torch.ones(5, 4), 1, 7), (torch.ones(5, 3), 0, 7)):
        with pytest.raises(ValueError):
            search(queries, vectors, k, chunk_size)
    with pytest.raises(ValueError):
        search(queries, torch.ones(5, 3), 1, -1)
    with pytest.raises(ValueError):
        search(torch.ones(3), torch.ones(5, 3), 1)


@pytest.mark.parametrize(
    "queries, vectors, k, chunk_size, words",
    [
        (torch.ones(2, 3), torch.ones(5, 4), 1, 7, r"not \(2, 3\) and \(5, 4\)"),
        (torch.ones(3), torch.ones(5, 3), 1, 7, r"not \(3,\) and \(5, 3\)"),
        (torch.ones(2, 3), np.ones(3), 1, 7, r"not \(2, 3\) and \(3,\)"),
        (torch.ones(2, 3), torch.ones(5, 3), 0, 7, "at least 1, not 0 and 7"),
        (torch.ones(2, 3), torch.ones(5, 3), 1, -1, "at least 1, not 1 and -1"),
    ],
)
def test_search_of_invalid_inputs_raises(queries, vectors, k, chunk_size, words):
    with pytest.raises(ValueError, match=words):
        search(queries, vectors, k, chunk_size)


# -------------------------------------------------------------------------------------------------
# The vectors of many examples.


def towers():
    """Two towers with batch norm and dropout, in training mode; and the words of one."""
    torch.manual_seed(0)
    image = resnet_encoder(11, image_size=16, depth=(1,), width=5, num_layers=0)
    text = LSTMEncoder(7, 11, hidden_size=13, dropout=0.5)
    model = DualEncoder({"image": image, "target": text}, dim=17, embed_dim=11)
    return model, {"target": Vocabulary(["a", "red", "cat"])}


def test_vectors_are_those_of_each_example_alone():
    model, vocabularies = towers()
    sentences = [["a"], ["a", "red", "cat"], ["a", "dog"]] * 43  # two batches and a rest
    examples = []
    for words in sentences:
        picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
        examples.append({"image": picture, "number": torch.tensor(1), "target": words})
    images = embed(model, vocabularies, examples, "image")
    texts = embed(model, vocabularies, examples, "target")
    assert images.shape == texts.shape == (129, 17)
    assert not images.requires_grad and not model.training
    with torch.no_grad():
        for i in (0, 1, 2, 63, 64, 128):
            image = model.embed("image", examples[i]["image"].unsqueeze(0))[0]
            ids = [*vocabularies["target"].encode(sentences[i]), EOS]
            text = model.embed("target", torch.tensor([ids]))[0]
            assert_close(images[i], image)
            assert_close(texts[i], text)


def test_no_examples_have_no_vectors():
    model, vocabularies = towers()
    assert embed(model, vocabularies, [], "image").shape == (0, 17)

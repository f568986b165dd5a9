"""Speed of the hand-written pieces against the usual libraries: python -m tests.benchmarks

Each pair is timed alternately in this process, for several rounds. Printed are the median ratio
(ours / theirs, below 1 is faster) and both medians.
"""

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from pycocoevalcap.cider.cider import Cider
from sacrebleu.metrics import BLEU
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, WhisperFeatureExtractor

from mmscratch.attention import Memory, MultiHeadAttention, causal_mask
from mmscratch.audio import SAMPLE_RATE, spectrogram
from mmscratch.batches import Examples, collate
from mmscratch.contrastive import contrastive_loss
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene, render
from mmscratch.data.speech import Voice, speak
from mmscratch.data.translations import SceneTranslation
from mmscratch.decoding import beam_search, candidate_log_probs, greedy_search
from mmscratch.engine.progress import Progress
from mmscratch.finetuning import add_lora, merge_lora
from mmscratch.metrics import bleu, cider_d
from mmscratch.model import ModelConfig, build_model
from mmscratch.recurrent import LSTM, LSTMDecoder
from mmscratch.search import search
from mmscratch.tasks.translation import Translation
from mmscratch.text import BOS, EOS, PAD, Vocabulary, tokenize
from mmscratch.training import TrainConfig, Trainer
from mmscratch.transformer import TransformerDecoder
from mmscratch.vision import conv2d, resnet_encoder

try:
    import faiss
except ImportError:
    faiss = None


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(name: str, ours, theirs, rounds: int = 9) -> None:
    ours()
    theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in times)
    a, b = (1000 * statistics.median(column) for column in zip(*times))
    print(f"{name:58} {ratio:6.2f}   ({a:.1f} ms / {b:.1f} ms)")


def lstm(module, x, dtype=torch.float32):
    def run():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            module(x)[0].float().sum().backward()

    return run


def attention(module, x, memory, **options):
    def run():
        module(x, *memory, **options)[0].sum().backward()

    return run


class TorchDecoder(nn.Module):
    """torch.nn.TransformerDecoder as a caption decoder, with the size and the parts of ours."""

    def __init__(self, vocab_size, embed_dim, num_heads, num_layers, max_length=64):
        super().__init__()
        layer = nn.TransformerDecoderLayer(
            embed_dim, num_heads, 4 * embed_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(embed_dim))
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.positions = nn.Embedding(max_length, embed_dim)

    def forward(self, tokens, memory):
        T = tokens.size(1)
        x = self.words(tokens) + self.positions.weight[:T]  # (B, T, D)
        x = self.decoder(x, memory.tokens, tgt_mask=~causal_mask(T, T), tgt_is_causal=True)
        return F.linear(x, self.words.weight)  # (B, T, V)


class TorchGPT(nn.Module):
    """torch.nn.TransformerEncoder with a causal mask, with the parts of our language model."""

    def __init__(self, vocab_size, embed_dim, num_heads, num_layers, max_length=64):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            embed_dim, num_heads, 4 * embed_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, num_layers, nn.LayerNorm(embed_dim), enable_nested_tensor=False
        )
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.positions = nn.Embedding(max_length, embed_dim)

    def forward(self, tokens, memory):
        T = tokens.size(1)
        x = self.words(tokens) + self.positions.weight[:T]  # (B, T, D)
        x = self.blocks(x, mask=~causal_mask(T, T), is_causal=True)
        return F.linear(x, self.words.weight)  # (B, T, V)


class TorchTranslator(nn.Module):
    """torch.nn.Transformer as a translator with a joint vocabulary, with the loss of ours."""

    loss_unit = "words"

    def __init__(self, config):
        super().__init__()
        D = config.embed_dim
        decoder = config.decoder
        self.transformer = nn.Transformer(
            d_model=D,
            nhead=decoder["num_heads"],
            num_encoder_layers=config.encoders["source"]["num_layers"],
            num_decoder_layers=decoder["num_layers"],
            dim_feedforward=decoder["mlp_dim"],
            dropout=decoder["dropout"],
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.words = nn.Embedding(config.vocab_size, D)
        self.source_positions = nn.Embedding(64, D)
        self.positions = nn.Embedding(64, D)
        self.dropout = nn.Dropout(decoder["dropout"])
        self.label_smoothing = config.label_smoothing

    def forward(self, batch):
        source = batch["source"]  # (B, S)
        target = F.pad(batch["target"][:, :-1], (1, 0), value=BOS)  # (B, T)
        S = source.size(1)
        T = target.size(1)
        padding = source == PAD
        x = self.words(source) + self.source_positions.weight[:S]  # (B, S, D)
        y = self.words(target) + self.positions.weight[:T]  # (B, T, D)
        output = self.transformer(
            self.dropout(x),
            self.dropout(y),
            tgt_mask=~causal_mask(T, T),
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return F.linear(output, self.words.weight)  # (B, T, V)

    def loss(self, batch):
        options = {"ignore_index": PAD, "reduction": "sum", "label_smoothing": self.label_smoothing}
        target = batch["target"]
        loss = F.cross_entropy(self(batch).flatten(0, 1), target.flatten(), **options)
        return loss, (target != PAD).sum()


def translation_steps(folder):
    """(a training step of chapter 10's Transformer, the same with torch.nn.Transformer), on scenes.

    The vocabulary is filled up to its size for Multi30k.
    """
    data = SceneTranslation("train", 9_600, size=0)
    sentences = [*data.columns["source"], *(references[0] for references in data.references)]
    words = sorted({word for sentence in sentences for word in sentence})
    vocabulary = Vocabulary([*words, *(f"filler {i}" for i in range(8_322 - len(words)))])
    examples = Examples(data, {"source": vocabulary, "target": vocabulary})
    settings = Translation().model({"layout": "multi30k", "photographs": None}, {}, None)
    source = settings["encoders"]["source"]
    settings["encoders"]["source"] = source | {"vocab_size": len(vocabulary)}
    model_config = ModelConfig(len(vocabulary), **settings)

    def step(theirs):
        config = TrainConfig(epochs=20, batch_size=96, precision="float32")
        trainer = Trainer(model_config, config, (examples, examples), folder)
        if theirs:
            trainer.model = TorchTranslator(model_config)
            trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), betas=(0.9, 0.98))
            trainer._wrap()
        trainer.model.train()
        batches = trainer._batches()

        def run():
            trainer._train_step(next(batches))
            trainer.step += 1

        return run

    return step(False), step(True)


def training_step(decoder, tokens, memory):
    optimizer = torch.optim.AdamW(decoder.parameters())

    def run():
        logits = decoder(tokens[:, :-1], memory)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def quickstart_step(folder):
    """(a step of quickstart in the training loop, the same in the usual five lines)"""
    training = SceneCaptions("train", 19_200, one_caption_each=True)
    validation = SceneCaptions("validation", 20)
    references = training.references + validation.references
    vocabulary = Vocabulary.build(caption for captions in references for caption in captions)
    vocabularies = {"target": vocabulary}
    examples = Examples(training, vocabularies), Examples(validation, vocabularies)
    settings = {"learning_rate": 3e-3, "bucket_batches": None, "precision": "float32"}
    config = TrainConfig(batch_size=96, **settings)
    model_config = ModelConfig(len(vocabulary), {"image": {"name": "resnet", "num_layers": 1}})
    trainer = Trainer(model_config, config, examples, folder)
    trainer.folder.mkdir(parents=True, exist_ok=True)
    metrics = trainer.folder / "metrics.jsonl"
    data_time = trainer.prefetcher.data_time
    steps = (0, trainer.steps)
    progress = Progress(metrics, steps, data_time, trainer.device, trainer.model.loss_unit)
    batches = trainer._batches()

    def ours():
        stats = trainer._train_step(next(batches))
        trainer.step += 1
        progress.update(trainer.step, stats, 0.0, trainer.skipped)

    model = copy.deepcopy(trainer.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader = iter(DataLoader(examples[0], batch_size=96, shuffle=True, collate_fn=collate))

    def theirs():
        batch = next(loader)
        logits = model(batch).flatten(0, 1)  # (B · T, V)
        loss = F.cross_entropy(logits, batch["target"].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return ours, theirs


@torch.no_grad()
def greedy_without_cache(decoder, memory, length):
    tokens = torch.full((memory.tokens.size(0), 1), BOS)
    for _ in range(length):
        tokens = torch.cat([tokens, decoder(tokens, memory)[:, -1:].argmax(-1)], dim=1)


@torch.no_grad()
def score_by_forward(model, images, targets):
    """The log-probability of each target (A, T) given each picture: (B, A)."""
    B = len(images)
    A = len(targets)
    memory = model.encode({"image": images})
    index = torch.arange(B).repeat_interleave(A)  # (B·A,)
    repeated = Memory(memory.tokens[index], memory.mask[index])  # (B·A, N, D)
    targets = targets.repeat(B, 1)  # (B·A, T)
    inputs = F.pad(targets[:, :-1], (1, 0), value=BOS)  # (B·A, T)
    logits = model.decoder(inputs, repeated).transpose(1, 2)  # (B·A, V, T)
    loss = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="none")
    return -loss.sum(1).view(B, A)


def compare_layers() -> None:
    x = torch.randn(16, 32, 32, 32)
    weight = torch.randn(64, 32, 3, 3)
    compare(
        "conv2d / F.conv2d",
        lambda: conv2d(x, weight, padding=1),
        lambda: F.conv2d(x, weight, padding=1),
    )

    words = torch.randn(64, 20, 256)
    ours = LSTM(256, 512)
    theirs = torch.nn.LSTM(256, 512, batch_first=True)
    compare("LSTM / torch.nn.LSTM, forward and backward", lstm(ours, words), lstm(theirs, words))
    compare(
        "LSTM in bfloat16 / torch.nn.LSTM in float32",
        lstm(ours, words, torch.bfloat16),
        lstm(theirs, words),
    )


def compare_attention(positions: Tensor, mask: Tensor) -> None:
    """`positions` of memories (B, N, D) and their padding mask (B, N)."""
    words = torch.randn(64, 20, 256)
    ours = MultiHeadAttention(256, 8)
    theirs = nn.MultiheadAttention(256, 8, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    causal = {"attn_mask": ~causal_mask(20, 20), "is_causal": True}
    compare(
        "MultiHeadAttention / torch's, causal self-attention",
        attention(ours, words, [], causal=True),
        attention(theirs, words, [words] * 2, need_weights=False, **causal),
    )
    compare(
        "MultiHeadAttention / torch's, cross-attention, padding mask",
        attention(ours, words, [positions], mask=mask.unsqueeze(1)),
        attention(theirs, words, [positions] * 2, need_weights=False, key_padding_mask=~mask),
    )
    compare(
        "MultiHeadAttention / torch's, cross-attention, weights too",
        attention(ours, words, [positions], need_weights=True),
        attention(theirs, words, [positions] * 2, average_attn_weights=False),
    )


def compare_transformers(memory: Memory) -> None:
    size = (500, 256, 8, 3)
    tokens = torch.randint(4, 500, (64, 25))
    decoder = TransformerDecoder(*size)
    compare(
        "TransformerDecoder / torch.nn.TransformerDecoder, a step",
        training_step(decoder, tokens, memory),
        training_step(TorchDecoder(*size), tokens, memory),
    )
    gpt_size = (8_000, 256, 4, 4)
    gpt = TransformerDecoder(*gpt_size, fusion="prefix")
    sentences = torch.randint(4, 8_000, (32, 65))
    compare(
        "a language model's step / torch.nn.TransformerEncoder's",
        training_step(gpt, sentences, Memory.empty(32, 256)),
        training_step(TorchGPT(*gpt_size), sentences, None),
    )
    with_lora = copy.deepcopy(decoder)
    add_lora(with_lora, rank=8)
    compare(
        "a step of training its LoRA of rank 8 / all of its weights",
        training_step(with_lora, tokens, memory),
        training_step(decoder, tokens, memory),
    )
    merge_lora(with_lora)
    with torch.no_grad():
        compare(
            "with a merged LoRA / without one",
            lambda: with_lora(tokens, memory),
            lambda: decoder(tokens, memory),
        )
        decoder.embedding.words.weight[EOS] = 0.0  # never generated: all sentences have 24 words
    compare(
        "greedy search, 64 sentences of 24 words / without a cache",
        lambda: greedy_search(decoder, memory, 24),
        lambda: greedy_without_cache(decoder, memory, 24),
        rounds=3,
    )


def compare_searches(memory: Memory) -> None:
    """Beam search with quickstart's decoder of 0.95 million parameters and with a GPT-2 of 1.0."""
    decoder = LSTMDecoder(115, 256, 256).eval()
    with torch.no_grad():
        decoder.bias[EOS] = -50.0
    size = {"n_positions": 64, "n_embd": 128, "n_layer": 5, "n_head": 4}
    tokens = {"bos_token_id": BOS, "eos_token_id": EOS}
    config = GPT2Config(vocab_size=115, activation_function="gelu_pytorch_tanh", **size, **tokens)
    gpt2 = GPT2LMHeadModel(config).eval()
    first = torch.full((64, 1), BOS)
    options = {"min_new_tokens": 24, "max_new_tokens": 24, "do_sample": False}
    options |= {"early_stopping": "never", "pad_token_id": PAD}
    options["attention_mask"] = torch.ones_like(first)
    compare(
        "beam search, 5 beams, 64 x 24 words / generate with a GPT-2",
        lambda: beam_search(decoder, memory, 5, 24),
        lambda: gpt2.generate(first, num_beams=5, **options),
        rounds=5,
    )
    compare(
        "beam search of 5 / greedy",
        lambda: beam_search(decoder, memory, 5, 24),
        lambda: greedy_search(decoder, memory, 24),
    )


def compare_answering() -> None:
    images = torch.randint(256, (64, 3, 64, 64), dtype=torch.uint8)
    question = torch.randn(64, 256)
    steered = resnet_encoder(256, num_layers=1, film="source")
    plain = resnet_encoder(256, num_layers=1)
    compare(
        "an image encoder with FiLM / without, forward and backward",
        lambda: steered(images, question).tokens.sum().backward(),
        lambda: plain(images).tokens.sum().backward(),
    )
    words = Vocabulary([f"word {i}" for i in range(500)])
    model = build_model(ModelConfig(len(words))).eval()
    candidates = [words.state()[i : i + 1 + i % 3] for i in range(200)]
    encoded = [torch.tensor([*words.encode(candidate), EOS]) for candidate in candidates]
    targets = pad_sequence(encoded, batch_first=True, padding_value=PAD)  # (A, T)
    examples = [{"image": image} for image in images]
    vocabularies = {"target": words}
    compare(
        "200 answers about 64 pictures, step by step / by forward",
        lambda: candidate_log_probs(model, vocabularies, examples, candidates),
        lambda: score_by_forward(model, images, targets),
        rounds=5,
    )


def compare_contrastive() -> None:
    try:
        from open_clip import ClipLoss
    except ImportError:
        print("contrastive loss: left out, since open-clip-torch is not installed")
        return
    vectors = F.normalize(torch.randn(2, 1024, 256), dim=-1)
    a, b = vectors.unbind()
    log_scale = torch.tensor(2.66)
    inputs = [x.requires_grad_() for x in (a, b, log_scale)]
    clip_loss = ClipLoss()
    compare(
        "contrastive loss / open_clip's, 1,024 pairs, with gradient",
        lambda: torch.autograd.grad(contrastive_loss(a, b, log_scale), inputs),
        lambda: torch.autograd.grad(clip_loss(a, b, log_scale.exp()), inputs),
        rounds=31,
    )


def compare_audio() -> None:
    waveform = 0.1 * torch.randn(60 * SAMPLE_RATE)
    samples = waveform.numpy()
    extractor = WhisperFeatureExtractor(chunk_length=60)
    compare(
        "spectrogram of a minute of sound / WhisperFeatureExtractor",
        lambda: spectrogram(waveform, SAMPLE_RATE),
        lambda: extractor(samples, sampling_rate=SAMPLE_RATE),
    )


def compare_training() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = quickstart_step(Path(folder, "run"))
        compare("a step of quickstart / the five-line loop", ours, theirs, rounds=75)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = translation_steps(Path(folder, "run"))
        compare("a step of a translator / torch.nn.Transformer's", ours, theirs, rounds=40)


def compare_metrics() -> None:
    references = [[" ".join(tokenize(c)) for c in captions(Scene(i))] for i in range(10_001)]
    # every other caption is that of another scene
    hypotheses = [references[i + i % 2][i % 5] for i in range(10_000)]
    references = references[:-1]
    tokens = [hypothesis.split() for hypothesis in hypotheses]
    token_references = [[ref.split() for ref in refs] for refs in references]
    sacrebleu = BLEU(tokenize="none")
    compare(
        "bleu / sacrebleu, 10,000 captions, 5 references",
        lambda: bleu(tokens, token_references),
        lambda: sacrebleu.corpus_score(hypotheses, list(zip(*references))),
        rounds=3,
    )
    by_number = {i: [hypothesis] for i, hypothesis in enumerate(hypotheses)}
    references_by_number = dict(enumerate(references))
    compare(
        "cider_d / pycocoevalcap, the same",
        lambda: cider_d(tokens, token_references),
        lambda: Cider().compute_score(references_by_number, by_number),
        rounds=3,
    )


def compare_retrieval() -> None:
    vectors = torch.empty(1_000_000, 256, dtype=torch.float16)
    for chunk in vectors.split(10_000):
        chunk.copy_(F.normalize(torch.randn(chunk.shape), dim=1))
    queries = F.normalize(torch.randn(4, 256), dim=1)
    in_single_precision = vectors.float()
    compare(
        "search, 4 queries, 1,000,000 vectors / torch.topk of float32",
        lambda: search(queries, vectors, 10),
        lambda: (queries @ in_single_precision.T).topk(10),
    )
    if faiss is None:
        return
    index = faiss.IndexFlatIP(256)
    index.add(in_single_precision.numpy())
    compare(
        "the same / faiss.IndexFlatIP of float32",
        lambda: search(queries, vectors, 10),
        lambda: index.search(queries.numpy(), 10),
    )


def main() -> None:
    torch.manual_seed(0)
    compare_layers()
    positions = torch.randn(64, 64, 256)
    mask = torch.ones(64, 64, dtype=torch.bool)
    memory = Memory(positions, mask)
    compare_attention(positions, mask)
    compare_transformers(memory)
    compare_searches(memory)
    compare_answering()
    compare_contrastive()
    compare_audio()
    compare_training()
    compare_metrics()
    compare_retrieval()

    torch.set_num_threads(1)
    elapsed = seconds(lambda: [render(Scene(i), 64) for i in range(5000)])
    print(f"scenes drawn at 64 pixels, one core: {5000 / elapsed:,.0f} a second")
    texts = [captions(Scene(i))[0] for i in range(200)]
    waveforms = []
    elapsed = seconds(lambda: waveforms.extend(speak(text, Voice(7)) for text in texts))
    spoken = sum(map(len, waveforms)) / SAMPLE_RATE
    print(f"speech, one core: {elapsed / spoken:.4f} seconds for each second of sound")


if __name__ == "__main__":
    main()

"""How fast are the hand-written pieces, against what one would otherwise use? python -m tests.benchmarks

Each pair is timed in turn in this process, several rounds; printed are the median ratio (ours / theirs, below 1 is
faster) and both medians.
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
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from mmscratch.attention import Memory, MultiHeadAttention, causal_mask
from mmscratch.batches import Examples, collate
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene, render
from mmscratch.data.translations import SceneTranslation
from mmscratch.decoding import beam_search, greedy_search
from mmscratch.engine.progress import Progress
from mmscratch.finetuning import add_lora, merge_lora
from mmscratch.metrics import bleu, cider_d
from mmscratch.model import ModelConfig
from mmscratch.recurrent import LSTM, LSTMDecoder
from mmscratch.tasks.translation import Translation
from mmscratch.text import BOS, EOS, PAD, Vocabulary, tokenize
from mmscratch.training import TrainConfig, Trainer
from mmscratch.transformer import TransformerDecoder
from mmscratch.vision import conv2d


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(name: str, ours, theirs, rounds: int = 9) -> None:
    ours(), theirs()
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
    """torch.nn.TransformerDecoder as a decoder of sentences, of the size and with the parts of ours."""

    def __init__(self, vocab_size, embed_dim, num_heads, num_layers, max_length=64):
        super().__init__()
        layer = nn.TransformerDecoderLayer(
            embed_dim, num_heads, 4 * embed_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(embed_dim))
        self.words, self.positions = (
            nn.Embedding(vocab_size, embed_dim),
            nn.Embedding(max_length, embed_dim),
        )

    def forward(self, tokens, memory):
        x, T = self.words(tokens) + self.positions.weight[: tokens.size(1)], tokens.size(1)
        x = self.decoder(x, memory.tokens, tgt_mask=~causal_mask(T, T), tgt_is_causal=True)
        return F.linear(x, self.words.weight)


class TorchGPT(nn.Module):
    """torch.nn.TransformerEncoder with a causal mask as a language model, of the size and with the parts of ours."""

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
    """torch.nn.Transformer as a translator with a joint vocabulary, of the size and with the parts and the loss of ours."""

    counts = "words"

    def __init__(self, config):
        super().__init__()
        D = config.embed_dim
        reader, writer = config.encoders["source"], config.decoder
        self.transformer = nn.Transformer(
            D,
            writer["num_heads"],
            reader["num_layers"],
            writer["num_layers"],
            writer["mlp_dim"],
            writer["dropout"],
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.words = nn.Embedding(config.vocab_size, D)
        self.source_positions = nn.Embedding(64, D)
        self.positions = nn.Embedding(64, D)
        self.dropout = nn.Dropout(writer["dropout"])
        self.label_smoothing = config.label_smoothing

    def forward(self, batch):
        source, target = batch["source"], batch["target"]
        x = F.pad(target[:, :-1], (1, 0), value=BOS)  # (B, T)
        T = target.size(1)
        padding = source == PAD
        output = self.transformer(
            self.dropout(self.words(source) + self.source_positions.weight[: source.size(1)]),
            self.dropout(self.words(x) + self.positions.weight[:T]),
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
    """(a step of training chapter 10's Transformer, the same loop with torch.nn.Transformer in it), on drawn scenes.

    The vocabulary is filled up to the size that it has for Multi30k.
    """
    data = SceneTranslation("train", 9_600, size=0)
    sentences = [*data.columns["source"], *(references[0] for references in data.references)]
    words = sorted({word for sentence in sentences for word in sentence})
    vocabulary = Vocabulary([*words, *(f"filler {i}" for i in range(8_322 - len(words)))])
    examples = Examples(data, {"source": vocabulary, "target": vocabulary})
    settings = Translation().model({"layout": "multi30k", "photographs": None}, {}, None)
    settings["encoders"]["source"] = settings["encoders"]["source"] | {
        "vocab_size": len(vocabulary)
    }
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
        F.cross_entropy(
            decoder(tokens[:, :-1], memory).flatten(0, 1), tokens[:, 1:].flatten()
        ).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def quickstart_step(folder):
    """(a step of quickstart in the loop, the same in the five lines that everybody writes first)"""
    training, validation = (
        SceneCaptions("train", 19_200, one_caption_each=True),
        SceneCaptions("validation", 20),
    )
    vocabulary = Vocabulary.build(
        c for data in (training, validation) for captions in data.references for c in captions
    )
    vocabularies = {"target": vocabulary}
    examples = Examples(training, vocabularies), Examples(validation, vocabularies)
    config = TrainConfig(
        batch_size=96, learning_rate=3e-3, bucket_batches=None, precision="float32"
    )
    model_config = ModelConfig(len(vocabulary), {"image": {"name": "resnet", "num_layers": 1}})
    trainer = Trainer(model_config, config, examples, folder)
    trainer.folder.mkdir(parents=True, exist_ok=True)
    metrics = trainer.folder / "metrics.jsonl"
    progress = Progress(
        metrics,
        (0, trainer.steps),
        trainer.prefetcher.data_time,
        trainer.device,
        trainer.model.counts,
    )
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
        loss = F.cross_entropy(
            model(batch).flatten(0, 1), batch["target"].flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return ours, theirs


@torch.no_grad()
def greedy_without_cache(decoder, memory, length):
    tokens = torch.full((memory.tokens.size(0), 1), BOS)
    for _ in range(length):
        tokens = torch.cat([tokens, decoder(tokens, memory)[:, -1:].argmax(-1)], dim=1)


def main() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(16, 32, 32, 32), torch.randn(64, 32, 3, 3)
    compare(
        "conv2d / F.conv2d",
        lambda: conv2d(x, weight, padding=1),
        lambda: F.conv2d(x, weight, padding=1),
    )

    words = torch.randn(64, 20, 256)
    ours, theirs = LSTM(256, 512), torch.nn.LSTM(256, 512, batch_first=True)
    compare("LSTM / torch.nn.LSTM, forward and backward", lstm(ours, words), lstm(theirs, words))
    compare(
        "LSTM in bfloat16 / torch.nn.LSTM in float32",
        lstm(ours, words, torch.bfloat16),
        lstm(theirs, words),
    )

    ours, theirs = MultiHeadAttention(256, 8), nn.MultiheadAttention(256, 8, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    places, padding = torch.randn(64, 64, 256), torch.ones(64, 1, 64, dtype=torch.bool)
    compare(
        "MultiHeadAttention / torch's, causal self-attention",
        attention(ours, words, [], causal=True),
        attention(
            theirs,
            words,
            [words] * 2,
            need_weights=False,
            attn_mask=~causal_mask(20, 20),
            is_causal=True,
        ),
    )
    compare(
        "MultiHeadAttention / torch's, cross-attention, padding mask",
        attention(ours, words, [places], mask=padding),
        attention(
            theirs, words, [places] * 2, need_weights=False, key_padding_mask=~padding.squeeze(1)
        ),
    )
    compare(
        "MultiHeadAttention / torch's, cross-attention, weights too",
        attention(ours, words, [places], need_weights=True),
        attention(theirs, words, [places] * 2, average_attn_weights=False),
    )

    size, tokens, memory = (
        (500, 256, 8, 3),
        torch.randint(4, 500, (64, 25)),
        Memory(places, padding.squeeze(1)),
    )
    decoder = TransformerDecoder(*size)
    compare(
        "TransformerDecoder / torch.nn.TransformerDecoder, a step",
        training_step(decoder, tokens, memory),
        training_step(TorchDecoder(*size), tokens, memory),
    )
    size = (8_000, 256, 4, 4)
    sentences = torch.randint(4, 8_000, (32, 65))
    compare(
        "a language model's step / torch.nn.TransformerEncoder's",
        training_step(TransformerDecoder(*size, fusion="prefix"), sentences, Memory.empty(32, 256)),
        training_step(TorchGPT(*size), sentences, None),
    )
    changed = copy.deepcopy(decoder)
    add_lora(changed, rank=8)
    compare(
        "a step of training its LoRA of rank 8 / all of its weights",
        training_step(changed, tokens, memory),
        training_step(decoder, tokens, memory),
    )
    merge_lora(changed)
    with torch.no_grad():
        compare(
            "with a merged LoRA / without one",
            lambda: changed(tokens, memory),
            lambda: decoder(tokens, memory),
        )
        decoder.embedding.words.weight[EOS] = 0.0  # it never comes: all write 24 words
    compare(
        "greedy search, 64 sentences of 24 words / without a cache",
        lambda: greedy_search(decoder, memory, 24),
        lambda: greedy_without_cache(decoder, memory, 24),
        rounds=3,
    )

    decoder = LSTMDecoder(
        115, 256, 256
    ).eval()  # quickstart's, with 0.95 million parameters; the GPT-2 has 1.0
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=115,
            n_positions=64,
            n_embd=128,
            n_layer=5,
            n_head=4,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    ).eval()
    with torch.no_grad():
        decoder.bias[EOS] = -50.0
    first, options = (
        torch.full((64, 1), BOS),
        {"min_new_tokens": 24, "early_stopping": "never", "pad_token_id": PAD},
    )
    options["attention_mask"] = torch.ones_like(first)
    compare(
        "beam search, 5 beams, 64 x 24 words / generate with a GPT-2",
        lambda: beam_search(decoder, memory, 5, 24),
        lambda: gpt2.generate(first, num_beams=5, max_new_tokens=24, do_sample=False, **options),
        rounds=5,
    )
    compare(
        "beam search of 5 / greedy",
        lambda: beam_search(decoder, memory, 5, 24),
        lambda: greedy_search(decoder, memory, 24),
    )

    with tempfile.TemporaryDirectory() as folder:
        compare(
            "a step of quickstart / the five-line loop",
            *quickstart_step(Path(folder, "run")),
            rounds=75,
        )

    with tempfile.TemporaryDirectory() as folder:
        compare(
            "a step of a translator / torch.nn.Transformer's",
            *translation_steps(Path(folder, "run")),
            rounds=40,
        )

    references = [[" ".join(tokenize(c)) for c in captions(Scene(i))] for i in range(10_001)]
    hypotheses = [
        references[i + i % 2][i % 5] for i in range(10_000)
    ]  # every other one is of another scene
    references = references[:-1]
    tokens, token_references = (
        [h.split() for h in hypotheses],
        [[ref.split() for ref in refs] for refs in references],
    )
    sacrebleu = BLEU(tokenize="none")
    compare(
        "bleu / sacrebleu, 10,000 captions, 5 references",
        lambda: bleu(tokens, token_references),
        lambda: sacrebleu.corpus_score(hypotheses, list(zip(*references))),
        rounds=3,
    )
    theirs, ours = (
        dict(enumerate(references)),
        {i: [hypothesis] for i, hypothesis in enumerate(hypotheses)},
    )
    compare(
        "cider_d / pycocoevalcap, the same",
        lambda: cider_d(tokens, token_references),
        lambda: Cider().compute_score(theirs, ours),
        rounds=3,
    )

    torch.set_num_threads(1)
    elapsed = seconds(lambda: [render(Scene(i), 64) for i in range(5000)])
    print(f"scenes drawn at 64 pixels, one core: {5000 / elapsed:,.0f} a second")


if __name__ == "__main__":
    main()

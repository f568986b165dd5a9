"""How fast are the hand-written pieces, against what one would otherwise use? python -m tests.benchmarks

Each pair is timed in turn in this process, several rounds; printed are the median ratio (ours / theirs, below 1 is
faster) and both medians.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from sacrebleu.metrics import BLEU

from mmscratch.metrics import bleu
from mmscratch.recurrent import LSTM
from mmscratch.scenes import Scene, captions, render
from mmscratch.text import tokenize
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


def main() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(16, 32, 32, 32), torch.randn(64, 32, 3, 3)
    compare("conv2d / F.conv2d", lambda: conv2d(x, weight, padding=1), lambda: F.conv2d(x, weight, padding=1))

    words = torch.randn(64, 20, 256)
    ours, theirs = LSTM(256, 512), torch.nn.LSTM(256, 512, batch_first=True)
    compare("LSTM / torch.nn.LSTM, forward and backward", lstm(ours, words), lstm(theirs, words))
    compare("LSTM in bfloat16 / torch.nn.LSTM in float32", lstm(ours, words, torch.bfloat16), lstm(theirs, words))

    sentences = [captions(Scene(i)) for i in range(2000)]
    hypotheses, references = [s[0] for s in sentences], [s[1:] for s in sentences]
    tokens, token_references = list(map(tokenize, hypotheses)), [list(map(tokenize, refs)) for refs in references]
    sacrebleu = BLEU(tokenize="none")
    compare(
        "bleu / sacrebleu, 2,000 captions, 4 references",
        lambda: bleu(tokens, token_references),
        lambda: sacrebleu.corpus_score(hypotheses, list(zip(*references))),
        rounds=3,
    )

    torch.set_num_threads(1)
    elapsed = seconds(lambda: [render(Scene(i), 64) for i in range(5000)])
    print(f"scenes drawn at 64 pixels, one core: {5000 / elapsed:,.0f} a second")


if __name__ == "__main__":
    main()

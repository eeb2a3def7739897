"""The table of our BitNet engine beside its limits and its peers, from the rows of `scripts/show bitnet`.

    python3 scripts/bitnet.py ROWS OURS.gguf TERNARY.gguf
"""
import json
import os
import statistics
import sys

rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
sizes = [os.path.getsize(path) / 1e6 for path in sys.argv[2:4]]
ours, theirs, bundled = ([row["row"] for row in rows if row["of"] == of] for of in ("ours", "llama-bench", "bundled"))


def shown(values, digits=1):
    """The median, and all of them in brackets."""
    each = " ".join(f"{value:.{digits}f}" for value in values)
    return f"{statistics.median(values):.{digits}f} ({each})"


def line(name, values, share=None, digits=1):
    share = "" if share is None else f"{100 * statistics.median(share):.0f} % ({' '.join(f'{100 * s:.0f}' for s in share)})"
    print(f"| {name} | {shown(values, digits)} | {share} |")


print("| | median (every round) | of its limit |")
print("|---|---|---|")
# Neighbours of a virtual machine take bandwidth: the limit of a round is what was read before and after it, in the mean.
read = [statistics.mean(row["read_gb_per_s"]) for row in ours]
line("memory, read from 1, 2, 4 or 8 places at a time, the fastest of these, GB/s", read)
for head, name in (("f16", "f16"), ("q8_0", "q8_0")):
    mb = ours[0][f"bytes_{head}"] / 1e6
    rates = [row[f"decode_{head}"] for row in ours]
    line(f"decode, ours, head in {name} ({mb:,.0f} MB per token), tokens/s", rates, [r * mb / 1e3 / b for r, b in zip(rates, read)])
for name, rates in (
    ("llama-bench 0.7.0", [next(x["avg_ts"] for x in row if x["n_gen"]) for row in theirs]),
    ("bundled llama.cpp", [row["decode_tokens_per_s"] for row in bundled]),
):
    line(f"decode, {name}, TQ2_0 (a file of {sizes[1]:,.0f} MB), tokens/s", rates, [r * sizes[1] / 1e3 / b for r, b in zip(rates, read)])
dots = [row["dots_per_s"] / 1e9 for row in ours]
line("products of 8 bits in registers, 10⁹/s", dots, digits=0)
rates = [row["prefill_128"] for row in ours]
line("prefill of 128 tokens, ours, tokens/s", rates, [r * ours[0]["dots_per_token"] / 1e9 / d for r, d in zip(rates, dots) if d], 1)
for name, rates in (
    ("llama-bench 0.7.0", [next(x["avg_ts"] for x in row if x["n_prompt"]) for row in theirs]),
    ("bundled llama.cpp", [row["prefill_tokens_per_s"] for row in bundled]),
):
    line(f"prefill of 128 tokens, {name}, TQ2_0, tokens/s", rates)

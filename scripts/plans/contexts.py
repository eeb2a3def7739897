"""How fast llama-server writes by the size of its context alone: the same plan with other sizes, in rounds whose order rotates.

usage: python3 scripts/plans/contexts.py ROUNDS MODEL USE_CASE SIZE [SIZE ...]   such as 2 "qwen3-0.6b Q4_K_M" rag 16384 32768 33024
       appends a row per request to target/show/contexts.jsonl and prints milliseconds per token. LOADMASTER_TEST_ENGINE_DIR names the engine's folder.

A request of 1,536 tokens and 48 of an answer goes to a server started anew; the first token of the answer comes with the prompt.
"""
import json
import statistics
import sys

from runs import measured, planned
from tools import OUT, commit, conditions, model, say

N_PROMPT, N_OUTPUT = 1536, 48


def main(rounds, name, use_case, sizes):
    path = model(name, "random")
    args, _, _ = planned(path, use_case)
    place = args.index("--ctx-size") + 1
    found = {size: [] for size in sizes}
    for number in range(rounds):
        turn = number * len(sizes) // rounds
        for size in sizes[turn:] + sizes[:turn]:
            before = conditions()
            took = measured(args[:place] + [size] + args[place + 1:], N_PROMPT, N_OUTPUT, number)
            found[size].append(took["predicted_ms"] / (N_OUTPUT - 1))
            row = {"commit": commit(), "model": name, "round": number, "size": int(size), "conditions": before, **took}
            with open(OUT / "contexts.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            say(f"{name}, -c {size}, round {number}: {found[size][-1]:.1f} ms per token, prompt {took['prompt_ms']:.0f} ms")
    for size, times in found.items():
        print(f"{size:>8} {statistics.median(times):6.1f} ms   {', '.join(f'{time:.1f}' for time in times)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])

"""Real requests on this machine: the plan against llama-server's own defaults, without and with `--fit on`, paired and interleaved.

usage: python3 scripts/plans/runs.py [PAIRS [CELL ...]]   appends a row per request to target/show/runs.jsonl; 7 pairs by default,
       CELL is the number of a cell. Pairs that are there are not run again.

A pair is one request to each of the three, every time to a server started anew, in an order that rotates. The time is the client's, from
sending the request to its end; a short request before it is not counted.
"""
import csv
import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import time

from tools import LOADMASTER, OUT, ROOT, Draw, commit, conditions, engine, model, rows, say

# Models of exact shape with random weights, and what they are for. Small, so that a pair takes seconds on two cores.
CELLS = [
    ("smollm2-135m Q8_0", "general"), ("smollm2-135m Q8_0", "chat"), ("smollm2-135m Q8_0", "long-context"),
    ("smollm2-360m Q4_K_M", "agent"), ("gemma3-270m Q8_0", "general"), ("gemma3-270m Q8_0", "code-completion"),
    ("qwen2.5-0.5b Q4_0", "speed"), ("qwen3-0.6b Q4_K_M", "rag"), ("qwen3-0.6b Q4_K_M", "speed"), ("qwen3-0.6b Q4_K_M", "quality"),
    ("llama-3.2-1b Q4_0", "speed"), ("mamba-130m Q8_0", "general"), ("qwen3-30b-a3b Q4_K_M n_layer=4", "speed"),
    ("gpt-oss-20b MXFP4_MOE n_layer=4", "code-completion"),
]
# The workloads of the use cases; one that is longer is cut to these, and the plan is asked for what is measured.
WORKLOADS = ROOT / "crates/planner/data/use_cases.csv"
MOST_IN, MOST_OUT = 2048, 256
PAIRS = 7
PORT = 18766
ARMS = ("plan", "defaults", "fit")


def planned(path, use_case):
    """The plan's arguments, tokens in, tokens out."""
    with open(WORKLOADS, encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["use_case"] == use_case)
    n_prompt, n_output = min(int(row["prompt"]), MOST_IN), min(int(row["output"]), MOST_OUT)
    command = [LOADMASTER, "plan", path, "--engine", engine("llama-server"), "--use-case", use_case, "--json"]
    command += ["--prompt-tokens", str(n_prompt), "--output-tokens", str(n_output)]
    result = subprocess.run(command, capture_output=True, text=True)
    # Fits, or fits after a downgrade.
    if result.returncode not in (0, 4):
        raise SystemExit(f"plans: no plan for {path.name}, {use_case}: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)["command"]["args"], n_prompt, n_output


def request(n_prompt, n_output, seed):
    """Seconds of one request by the client's clock, and the server's own timings."""
    draw = Draw(seed)
    body = {"prompt": [draw.randrange(300, 30_000) for _ in range(n_prompt)], "n_predict": n_output, "ignore_eos": True, "cache_prompt": False, "temperature": 0.0, "seed": 1}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=1800)
    began = time.monotonic()
    connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    seconds = time.monotonic() - began
    if answer.status != 200:
        raise RuntimeError(f"the server says {answer.status}: {said}")
    timings = said["timings"]
    if (timings["prompt_n"], timings["predicted_n"]) != (n_prompt, n_output):
        raise RuntimeError(f"{timings['prompt_n']} tokens in and {timings['predicted_n']} out instead of {n_prompt} and {n_output}")
    return seconds, {"prompt_ms": timings["prompt_ms"], "predicted_ms": timings["predicted_ms"]}


def measured(args, n_prompt, n_output, seed):
    """One server, one request."""
    with tempfile.TemporaryFile("w+") as log:
        command = [engine("llama-server"), *args, "--host", "127.0.0.1", "--port", str(PORT)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        def text():
            log.seek(0)
            return log.read()
        try:
            while "listening on" not in text():
                if process.poll() is not None or time.monotonic() - began > 600:
                    raise RuntimeError(f"the server does not start: {text()[-2000:]}")
                time.sleep(0.05)
            load = time.monotonic() - began
            request(16, 4, seed + 1)
            seconds, timings = request(n_prompt, n_output, seed)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
        slots = re.search(r"n_slots = (\d+), n_ctx_slot = (\d+)", text())
    return {"seconds": seconds, "load_seconds": load, **timings, "n_ctx": int(slots[2]) if slots else None}


def main(pairs, chosen):
    kept = OUT / "runs.jsonl"
    OUT.mkdir(parents=True, exist_ok=True)
    version = commit()
    done = {(row["model"], row["use_case"], row["pair"]) for row in rows(kept) if row["commit"] == version}
    for number, (name, use_case) in enumerate(CELLS):
        if chosen and number not in chosen:
            continue
        path = model(name, "random")
        args, n_prompt, n_output = planned(path, use_case)
        arms = {"plan": args, "defaults": ["-m", str(path), "--fit", "off"], "fit": ["-m", str(path), "--fit", "on"]}
        for pair in range(pairs):
            if (name, use_case, pair) in done:
                continue
            found = {}
            order = ARMS[pair % 3:] + ARMS[:pair % 3]
            for place, arm in enumerate(order):
                before = conditions()
                found[arm] = {"place": place, "conditions": before, **measured(arms[arm], n_prompt, n_output, 1000 * number + pair)}
            row = {"commit": version, "model": name, "use_case": use_case, "pair": pair, "n_prompt": n_prompt, "n_output": n_output, "args": [word for word in args if word != str(path)], "arms": found}
            with open(kept, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            say(f"{name}, {use_case}, pair {pair}: " + ", ".join(f"{arm} {found[arm]['seconds']:.2f} s" for arm in ARMS))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS, {int(word) for word in sys.argv[2:]})

"""Plans on pretended GPUs of random sizes, loaded for real or by the engine's own dry run, and `--fit` on the same budgets.

usage: python3 scripts/plans/loads.py [CASES]   appends a row per case to target/show/plans.jsonl; cases that are there are not run again

A pretended device refuses what passes its size. Anonymous memory of a load stays under 3 GiB; larger budgets are dry runs.
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from tools import LOADMASTER, MIB, OUT, Draw, commit, engine, largest_layer, model, rows, say

# Loads for real: exact widths, some with fewer layers so that a budget that matters stays small.
SMALL = [
    "smollm2-135m Q8_0", "smollm2-360m Q8_0", "qwen2.5-0.5b Q8_0", "qwen3-0.6b Q4_K_M", "qwen3-0.6b BF16", "llama-3.2-1b Q4_0",
    "llama-3.2-1b Q8_0", "gemma3-270m F16", "gemma3-1b Q4_K_M", "qwen2.5-1.5b Q4_K_M", "tinyllama-1.1b Q5_K_M", "mamba-130m F16",
    "mamba-2.8b Q4_K_M", "phi-3-mini Q4_K_M n_layer=14", "llama-3.1-8b Q4_K_M n_layer=8", "qwen3-30b-a3b Q4_K_M n_layer=5",
    "gpt-oss-20b MXFP4_MOE n_layer=4", "deepseek-v2-lite Q4_K_M n_layer=5 q_lora=1536", "qwen3.5-2b Q4_K_M n_layer=8",
    "granite4-h-tiny Q8_0 n_layer=7", "phi-3.5-moe Q5_K_M n_layer=2",
]
# Dry runs: whole models on GPUs of the sizes that are sold.
LARGE = [
    "llama-3.1-8b Q4_K_M", "qwen3-8b Q8_0", "gemma3-12b Q4_K_M", "qwen3-14b Q4_K_M", "mistral-small-24b Q4_K_M", "qwen3-32b Q4_K_M",
    "qwen3-30b-a3b Q4_K_M", "gpt-oss-20b MXFP4_MOE", "mixtral-8x7b Q4_K_M", "llama-3.1-70b Q4_K_M", "gpt-oss-120b MXFP4_MOE",
    "deepseek-v2-lite Q8_0",
]
SOLD_GIB = [4, 6, 8, 10, 12, 16, 24, 32, 48, 80]
MOST_MIB = 2600
MARGIN_MIB = 384
PORT = 18765
BROKEN = re.compile(r"out of memory|failed to allocate|unable to allocate|error loading model|failed to create", re.I)


def cases(count):
    """Half of the cases have one device, the others two or four; a quarter are dry runs."""
    for number in range(count):
        draw = Draw(number)
        devices = draw.choice([1, 1, 2, 4])
        dry = number % 4 == 3
        name = draw.choice(LARGE if dry else SMALL)
        size = model(name).stat().st_size // MIB
        if dry:
            # The sold size that is nearest to a share of the model, so that most are too small for all of it.
            wanted = [size / 1024 * draw.uniform(0.1, 1.3) / devices for _ in range(devices)]
            sizes = [1024 * min(SOLD_GIB, key=lambda gib: abs(gib - want)) for want in wanted]
        else:
            room = min(size * draw.uniform(0.15, 1.5) + 120 * devices, MOST_MIB)
            shares = [draw.uniform(0.4, 1.0) for _ in range(devices)]
            sizes = [int(MARGIN_MIB + 40 + room * share / sum(shares)) for share in shares]
        used = [draw.randrange(300) if draw.percent(25) else 0 for _ in sizes]
        sizes = [size + taken for size, taken in zip(sizes, used)] if not dry else sizes
        use_case = draw.choice(use_cases())
        # What others pin most.
        pins = draw.choice([[], [], [], ["-c", str(draw.choice([2048, 4096, 12288]))], ["-ctk", "q8_0", "-ctv", "q8_0"], ["-ub", "256"]])
        yield {"case": number, "kind": "dry run" if dry else "load", "model": name, "gpus": sizes, "used": used, "use_case": use_case, "pins": pins}


def use_cases(found=[]):
    """The use cases that the program knows."""
    if not found:
        text = subprocess.run([LOADMASTER, "plan", "--help"], capture_output=True, text=True).stdout
        values = re.search(r"--use-case <CASE>.*?\[possible\s+values:([^\]]*)\]", text, re.S)
        found += values[1].replace(",", " ").split() if values else ["general"]
    return found


def environment(case):
    """The pretended GPUs of a case. Their name gives them the allocation rules of the plugin and no memory of a driver."""
    sizes = {"PRETENDED_GPUS": ",".join(map(str, case["gpus"])), "PRETENDED_USED": ",".join(map(str, case["used"]))}
    return {**os.environ, "GGML_BACKEND_PATH": str(OUT / "pretended.so"), "PRETENDED_NAME": "FAKE", **sizes}


def planned(case, path, more=()):
    """The plan of a case as JSON, and the exit code."""
    command = [LOADMASTER, "plan", path, "--engine", engine("llama-server"), "--use-case", case["use_case"], "--json", *case["pins"], *more]
    if case["kind"] == "dry run":
        # The host holds what the devices do not, whatever this one has.
        command += ["--disk", "allow"]
    result = subprocess.run(command, env=environment(case), capture_output=True, text=True)
    if result.returncode in (0, 4):
        return json.loads(result.stdout), result.returncode
    return {"refused": (result.stdout or result.stderr)[:2000]}, result.returncode


def high(known):
    """The upper end of a figure."""
    return known.get("high", known.get("value")) if known["known"] == "estimated" else known["value"]


def pools(plan):
    """The devices of a plan: what may be used, what is needed, and of that weights and cache."""
    found = []
    for budget, device in zip(plan["budgets"], plan["requirement"]["devices"]):
        found.append({
            "name": device["name"], "free": budget["free_bytes"]["value"], "margin": budget["margin_bytes"], "needed": high(budget["needed_bytes"]),
            "weights": device["weights_bytes"]["value"], "cache": device["kv_cache_bytes"]["value"] + device["state_bytes"]["value"],
        })
    return found


def loaded(case, args):
    """Starts llama-server until it listens: whether it did, the MiB of each device and the host in its own account, seconds."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        command = [engine("llama-server"), *args, "--no-warmup", "-lv", "4", "--host", "127.0.0.1", "--port", str(PORT)]
        process = subprocess.Popen(command, env=environment(case), stdout=log, stderr=subprocess.STDOUT)
        def text():
            log.seek(0)
            return log.read()
        try:
            while process.poll() is None and time.monotonic() - began < 600 and "listening on" not in text():
                time.sleep(0.2)
            up = process.poll() is None and "listening on" in text()
            seconds = time.monotonic() - began
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said = text()
    account = {}
    for line in said.splitlines():
        found = re.search(r"(\w+?)(?:_\w+)? +(?:model|KV|RS|output|compute) buffer size = +([0-9.]+) MiB", line)
        if found:
            account[found[1]] = account.get(found[1], 0.0) + float(found[2])
    broken = BROKEN.search(said)
    result = {"loaded": up and not broken, "account_mib": account, "seconds": round(seconds, 1)}
    return result if result["loaded"] else {**result, "said": said[-3000:]}


def fit_params(case, path, words):
    """What llama-fit-params makes of the budgets: arguments, or None where it gives up."""
    command = [engine("llama-fit-params"), "-m", path, *words]
    # A program that ends early sometimes loses the end of its log.
    for _ in range(4):
        result = subprocess.run(command, env=environment(case), capture_output=True, text=True)
        if result.returncode == 0:
            return result.stdout.strip().splitlines()[-1].split() if result.stdout.strip() else []
        if "failed to fit params" in result.stderr:
            return None
    return None


def dry_run(case, path, args):
    """The engine's own account of the arguments, in MiB by device: `llama-fit-params --fit-print`."""
    known = subprocess.run([engine("llama-fit-params"), "--help"], capture_output=True, text=True)
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", known.stdout + known.stderr))
    kept, words = [], list(args)
    while words:
        word = words.pop(0)
        values = []
        while words and not re.match(r"-{1,2}[a-zA-Z]", words[0]):
            values.append(words.pop(0))
        if word in known and word not in ("--model", "--fit"):
            kept += [word, *values]
    command = [engine("llama-fit-params"), "-m", path, *kept, "--fit-print", "on"]
    result = subprocess.run(command, env=environment(case), capture_output=True, text=True)
    account = {}
    for line in result.stdout.splitlines():
        words = line.split()
        if len(words) == 4 and all(word.isdigit() for word in words[1:]):
            account[words[0]] = float(sum(map(int, words[1:])))
    if not account:
        return {"loaded": False, "account_mib": {}, "said": (result.stdout + result.stderr)[-3000:]}
    frees = {f"FAKE{i}": size - used for i, (size, used) in enumerate(zip(case["gpus"], case["used"]))}
    return {"loaded": all(account.get(name, 0.0) <= free for name, free in frees.items()), "account_mib": account}


def placed(case, path, words):
    """Bytes that arguments place, by our own account: devices' weights and cache, and what the host must hold."""
    command = [LOADMASTER, "memory", path, "--engine", engine("llama-server"), "--json", *words]
    result = subprocess.run(command, env=environment(case), capture_output=True, text=True)
    if result.returncode:
        return {"error": result.stderr[:500]}
    memory = json.loads(result.stdout)
    sums = {"weights": 0, "cache": 0, "host": 0}
    for device in memory["devices"]:
        load = device["load"]
        if device["kind"] == "cpu":
            sums["host"] += device["resident"]["anonymous"]["working"]
        else:
            sums["weights"] += load["weights"]
            sums["cache"] += load["kv_cache"] + load["recurrent_state"]
    return sums


def fits(case, path, plan):
    """`--fit` on the same budgets: as it comes, and with our margins and our context."""
    pins = case["pins"]
    found = {}
    ways = {"default": pins}
    if "refused" not in plan:
        settings = {setting["name"]: setting["value"] for setting in plan["settings"]}
        margins = ",".join(str(-(-pool["margin"] // MIB)) for pool in pools(plan))
        cache = ["-ctk", settings["cache_type_k"], "-ctv", settings["cache_type_v"]]
        ways["same"] = ["-c", settings["n_ctx"], "-fitt", margins, *cache, "-b", settings["n_batch"], "-ub", settings["n_ubatch"]]
    for way, words in ways.items():
        answer = fit_params(case, path, words)
        kept = [word for pair in zip(words[::2], words[1::2]) if pair[0] != "-fitt" for word in pair]
        found[way] = {"args": answer, "asked": words}
        if answer is not None:
            answer = [word.strip('"') for word in answer]
            own = [word for pair in zip(kept[::2], kept[1::2]) if pair[0] not in answer for word in pair]
            found[way]["placed"] = placed(case, path, own + answer)
    return found


def one(case):
    """All that is asked of one case."""
    path = model(case["model"])
    plan, code = planned(case, path)
    row = {**case, "file_bytes": path.stat().st_size, "largest_layer": largest_layer(path), "exit": code}
    if "refused" in plan:
        row["refused"] = plan["refused"]
    else:
        args = [word for word in plan["command"]["args"] if word != str(path)]
        args.remove("--model")
        host = plan["budgets"][-1]
        row.update(
            verdict=plan["verdict"], strategy=plan["strategy"], args=args, pools=pools(plan), n_layer=sum(x["last"] - x["first"] + 1 for x in plan["requirement"]["layers"]),
            host={"total": host["total_bytes"]["value"], "free": host["free_bytes"]["value"], "needed": high(host["needed_bytes"])},
            decode=plan["speed"]["decode_tokens_per_s"]["value"],
            cache=sum(place[part]["value"] for place in [plan["requirement"]["host"], *plan["requirement"]["devices"]] for part in ("kv_cache_bytes", "state_bytes")),
        )
        row["placed"] = placed(case, path, [*args[:-2]] if args[-2:] == ["--fit", "off"] else args)
        row.update(dry_run(case, path, args) if case["kind"] == "dry run" else loaded(case, ["--model", str(path), *args]))
    row["fit"] = fits(case, path, plan)
    return row


def main(count):
    kept = OUT / "plans.jsonl"
    OUT.mkdir(parents=True, exist_ok=True)
    version = commit()
    done = {row["case"] for row in rows(kept) if row["commit"] == version}
    for case in cases(count):
        if case["case"] in done:
            continue
        row = {"commit": version, **one(case)}
        with open(kept, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        what = "refused" if "refused" in row else "loaded" if row["loaded"] else "FAILED"
        say(f"{row['case']:4} {what:8} {row['kind']:8} {row['model']} on {row['gpus']} less {row['used']} for {row['use_case']}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 220)

"""The figures of PLANS.md out of the kept rows, the small recording that a test of crate planner replays, and every request of `runs`.

usage: python3 scripts/plans/report.py loads|runs
"""
import csv
import math
import statistics
import sys

from tools import MIB, OUT, ROOT, between_marks, newest, rows, say

RECORDED = ROOT / "crates/planner/tests/loads/cases.csv"
RUNS = ROOT / "scripts/plans/runs.csv"
# Upper 2.5 % of Student's t, by degrees of freedom (any table of it).
T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 14: 2.14, 19: 2.09, 29: 2.05}
# The request before keeps one thread per CPU at work, which the load of the last minute still counts.
BUSY = 1.25


def table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(out + ["| " + " | ".join(map(str, line)) + " |" for line in lines])


def arguments(words):
    """Flags with their values."""
    found, last = {}, None
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            last = word
            found[last] = ""
        elif last:
            found[last] = word
    return found


def layers(words):
    given = arguments(words)
    text = given.get("--n-gpu-layers", given.get("-ngl", "-1"))
    return int(text) if text.isdigit() else None


def context(words):
    given = arguments(words)
    return int(given.get("--ctx-size", given.get("-c", "0")))


def needs_memory(row):
    """True where something that could be on a device lies on the host."""
    return row["strategy"] != "GPU only"


def fill(row):
    """Share of what is left after margin and the largest unsplittable unit that the engine took, over the devices that can hold a unit."""
    unit = row["largest_layer"] + row["cache"] / max(row["n_layer"] - 1, 1)
    taken = [row["account_mib"].get(pool["name"], 0.0) * MIB for pool in row["pools"]]
    overhead = min((pool["needed"] - pool["weights"] - pool["cache"] for pool in row["pools"] if pool["needed"]), default=0)
    use = room = 0.0
    for pool, bytes_taken in zip(row["pools"], taken):
        limit = pool["free"] - pool["margin"]
        if bytes_taken == 0 and limit < unit + overhead:
            continue
        use, room = use + bytes_taken, room + max(limit - unit, 0.0)
    return use / room if room > 0 else None


def share(part, whole):
    return f"{part} of {whole}"


def loads():
    found = rows(OUT / "plans.jsonl")
    text = []
    for kind in ("load", "dry run"):
        kinds = [row for row in found if row["kind"] == kind]
        lines = [line_of(name, [row for row in kinds if which(len(row["gpus"]))]) for name, which in
                 (("1", lambda n: n == 1), ("2", lambda n: n == 2), ("4", lambda n: n == 4), ("all", lambda n: True))]
        title = "Real loads with llama-server" if kind == "load" else "Larger budgets, by llama-fit-params' own dry run"
        head = ["devices", "cases", "plans", "loaded" if kind == "load" else "within every device", "memory needed", "of which 90 % filled", "median filled", "least filled"]
        text += [f"{title}:", "", table(head, lines), ""]
    text += [against_fit(found), "", f"Commit {found[-1]['commit']}."] if found else ["Not run yet."]
    between_marks("loads", "\n".join(text))
    record([row for row in found if "refused" not in row])
    failed = [row for row in found if not row.get("loaded", True)]
    say(f"{len(found)} cases, {len(failed)} failed: {[row['case'] for row in failed]}")


def line_of(name, found):
    plans = [row for row in found if "refused" not in row]
    tight = [(fill(row), row) for row in plans if needs_memory(row)]
    fills = [value for value, _ in tight if value is not None]
    return [
        name, len(found), len(plans), share(sum(row["loaded"] for row in plans), len(plans)), len(fills), share(sum(value >= 0.9 for value in fills), len(fills)),
        f"{statistics.median(fills):.1%}" if fills else "–", f"{min(fills):.1%}" if fills else "–",
    ]


def against_fit(found):
    """`--fit` on the same budgets: what it places."""
    lines, refused = [], []
    for way, title in (("default", "`--fit on` as it comes"), ("same", "with our margins, context and cache types")):
        for kind in ("load", "dry run"):
            both = []
            for row in found:
                fit = row["fit"].get(way)
                if row["kind"] != kind or "refused" in row or not fit or fit["args"] is None or "weights" not in fit.get("placed", {}):
                    continue
                both.append((row, fit))
            if not both:
                continue
            more = [(row["placed"]["weights"] - fit["placed"]["weights"]) / row["file_bytes"] for row, fit in both]
            gained = [layers(row["args"]) - layers(fit["args"] or fit["asked"]) for row, fit in both
                      if layers(row["args"]) is not None and layers(fit["args"]) is not None]
            longer = [math.log2(context(row["args"]) / context(fit["args"])) for row, fit in both if context(fit["args"] or []) > 0]
            lines.append([
                title, kind, len(both), f"{sum(x > 0.001 for x in more)} / {sum(abs(x) <= 0.001 for x in more)} / {sum(x < -0.001 for x in more)}",
                f"{statistics.mean(more):+.1%}", f"{statistics.mean(gained):+.1f}" if gained else "–",
                f"× {2 ** statistics.mean(longer):.2f}" if way == "default" and longer else "the same",
            ])
    for row in found:
        fit = row["fit"]["default"]
        if "refused" in row and fit["args"] is not None:
            refused.append(row["case"])
    head = ["`--fit`", "kind", "compared", "more / as many / fewer weights on devices", "weights on devices, mean", "layers, mean", "context"]
    said = f"Cases in which `--fit` finds an answer and the plan is refused: {len(refused)}" + (f" ({', '.join(map(str, refused))})." if refused else ".")
    return "\n".join(["Against `--fit` on the same budgets (shares are of the file):", "", table(head, lines), "", said])


def record(found):
    """A line per plan: what was asked, what was planned, what the engine took, and what `--fit` answered."""
    RECORDED.parent.mkdir(exist_ok=True)
    with open(RECORDED, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["case", "model", "gpus", "used", "host_total", "host_free", "use_case", "pins", "args", "took_mib", "fit_asked", "fit_args"])
        for row in found:
            same = row["fit"].get("same", {"asked": [], "args": None})
            out.writerow([
                row["case"], row["model"], ",".join(map(str, row["gpus"])), ",".join(map(str, row["used"])), row["host"]["total"], row["host"]["free"],
                row["use_case"], " ".join(row["pins"]), " ".join(row["args"]),
                ",".join(f"{row['account_mib'].get(pool['name'], 0.0):.2f}" for pool in row["pools"]) if row["kind"] == "load" else "",
                " ".join(same["asked"]), "gave up" if same["args"] is None else " ".join(same["args"]),
            ])


def interval(logs):
    """Mean of logarithms with its 95 % interval by Student's t, as ratios."""
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(mean), 0.0, math.inf
    freedom = len(logs) - 1
    t = T[max(key for key in T if key <= freedom)]
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def runs():
    found = newest(OUT / "runs.jsonl", lambda row: (row["model"], row["use_case"]))
    lines, slower, loads_seen = [], 0, []
    for cell in sorted({(row["model"], row["use_case"]) for row in found}):
        pairs = [row for row in found if (row["model"], row["use_case"]) == cell]
        loads_seen += [arm["conditions"]["load"] / arm["conditions"]["cpus"] for row in pairs for arm in row["arms"].values()]
        words = []
        for other in ("defaults", "fit"):
            ratio, low, high = interval([math.log(row["arms"]["plan"]["seconds"] / row["arms"][other]["seconds"]) for row in pairs])
            slower += low > 1.0
            words.append(f"{ratio:.3f} ({low:.3f} to {high:.3f})" if len(pairs) > 1 else f"{ratio:.3f} (no interval)")
        seconds = statistics.median(row["arms"]["plan"]["seconds"] for row in pairs)
        lines.append([*cell, f"{pairs[0]['n_prompt']} + {pairs[0]['n_output']}", len(pairs), f"{seconds:.2f} s", *words])
    if not lines:
        between_marks("runs", "Not run yet.")
        return
    head = ["model", "use case", "tokens in + out", "pairs", "plan, median", "plan ÷ defaults", "plan ÷ `--fit on`"]
    some = next(iter(found[-1]["arms"].values()))["conditions"]
    busy = statistics.median(loads_seen)
    said = f"{some['cpus']} CPUs of {some['cpu']}, {some['memory_gib']} GiB; load per CPU before a request: median {busy:.2f}, highest {max(loads_seen):.2f}."
    if busy > BUSY:
        said += " **Other work was running: these figures show that the command works, and nothing else.**"
    commits = list(dict.fromkeys(row["commit"] for row in found))
    said = ("Commit " if len(commits) == 1 else "Each cell at the commit at which it ran last, of ") + ", ".join(commits) + ". " + said
    judged = 2 * sum(line[3] > 1 for line in lines)
    verdict = f"Significantly slower (the whole interval above 1): {slower} of {judged}."
    between_marks("runs", "\n".join([table(head, lines), "", verdict, "", said]))
    with open(RUNS, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["commit", "model", "use_case", "pair", "n_prompt", "n_output", "arm", "place", "load", "seconds", "prompt_ms", "predicted_ms", "n_ctx"])
        for row in found:
            for name, arm in row["arms"].items():
                times = [f"{arm['conditions']['load']:.2f}", f"{arm['seconds']:.3f}", f"{arm['prompt_ms']:.1f}", f"{arm['predicted_ms']:.1f}", arm["n_ctx"]]
                out.writerow([row["commit"], row["model"], row["use_case"], row["pair"], row["n_prompt"], row["n_output"], name, arm["place"], *times])
    say(verdict)


if __name__ == "__main__":
    {"loads": loads, "runs": runs}[sys.argv[1]]()

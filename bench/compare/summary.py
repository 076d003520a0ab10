"""Summarizes what compare-llama.sh measured: medians, spreads and ratios, as markdown, CSV and JSON. Standard library only."""

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from statistics import median

# Target rates as multiples of llama.cpp's: (shape, quantization, instruction set) -> (cell, batch) -> ratio.
# An empty instruction set is the processor's best one.
TARGETS = {
    ("1b", "Q4_K_M", ""): {
        ("decode", 1): 1.8, ("decode", 4): 2.5, ("decode", 8): 3.5, ("decode", 16): 3.5, ("decode", 32): 4.0,
        ("prefill", 1): 4.0,
    },
    ("1b", "Q4_K_M", "avx2"): {("decode", 1): 1.0, ("decode", 8): 1.5},
}
# Target shares of the read bandwidth at batch 1, with the same keys.
SHARE_TARGETS = {("1b", "Q8_0", ""): 0.75, ("1b", "Q6_K", ""): 0.75}
# The targets apply to this many tokens in the context and in the timed prompt.
TARGET_CONTEXT, TARGET_PREFILL = 128, 512

# A cell is bound by the resource of which it uses the larger share, if that share is at least this.
BOUND_SHARE = 0.5


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("work", "shape", "quants", "batches", "isa", "out"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("threads", "cores", "context", "gen", "prefill", "repeats", "ticks", "repack"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--targets", action="store_true")
    return parser.parse_args()


def lines(path):
    """The lines of a file that are not blank."""
    return [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]


def read_runs(args):
    """Every run by name: its output, and the share of the machine that other work used meanwhile."""
    runs = {}
    for line in lines(args.work / "runs.tsv"):
        fields = (line + "\t\t").split("\t")
        name, (wall, user, system) = fields[0], map(float, fields[1:4])
        others = None
        if fields[4] and fields[5] and wall > 0:
            busy = (float(fields[5]) - float(fields[4])) / args.ticks
            others = max(0.0, (busy - user - system) / (wall * args.cores))
        runs[name] = {"others": others, "text": (args.work / f"{name}.out").read_text(errors="replace")}
    return runs


def recua_run(text):
    """Tokens per second, the bytes that a decode step must read, the measured peak, and the device."""
    report = json.loads(text)
    row = report["rows"][-1]
    peak = report["peak_bytes_per_s"]
    return {
        # The mean step, because llama.cpp's tool reports its mean.
        "decode": row["batch"] * 1e3 / row["mean_step_ms"],
        "prefill": row["prefill_tps"],
        "bytes": row["peak_fraction"] * peak * row["step_ms"] / 1e3,
        "peak": peak,
        "device": report["device"],
    }


def llama_run(cell, text):
    if cell == "prefill":
        # A message may come before the list.
        return json.loads(text[text.index("["):])[0]["samples_ts"][0]
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if len(rows) != 1:
        raise ValueError(f"llama-batched-bench printed {len(rows)} rows")
    return rows[0]["speed_tg"]


def spread(values):
    return (max(values) - min(values)) / median(values)


def measure(args, runs):
    """The cells in order, all pairs, the measured peaks and the devices."""
    cells, pairs, peaks, devices = [], [], [], set()
    kinds = [("decode", int(batch)) for batch in args.batches.split(",")]
    if args.prefill:
        kinds.append(("prefill", 1))
    for quant in args.quants.split(","):
        for cell, batch in kinds:
            of_cell, n_bytes, shares = [], [], []
            for repeat in range(1, args.repeats + 1):
                name = f"{quant}.{cell}.{batch}.{repeat}"
                ours, theirs = runs[f"{name}.recua"], runs[f"{name}.llama"]
                recua = recua_run(ours["text"])
                peaks.append(recua["peak"])
                devices.add(recua["device"])
                n_bytes.append(recua["bytes"])
                shares.append(recua["bytes"] * recua["decode"] / batch / recua["peak"])
                pair = {
                    "quant": quant, "cell": cell, "batch": batch, "repeat": repeat,
                    "recua_tps": recua[cell], "llama_tps": llama_run(cell, theirs["text"]),
                    "recua_others": ours["others"], "llama_others": theirs["others"],
                    "peak_bytes_per_s": recua["peak"],
                }
                pair["ratio"] = pair["recua_tps"] / pair["llama_tps"]
                of_cell.append(pair)
            pairs += of_cell
            ratios = [pair["ratio"] for pair in of_cell]
            recua, llama = ([pair[key] for pair in of_cell] for key in ("recua_tps", "llama_tps"))
            cells.append({
                "quant": quant, "cell": cell, "batch": batch,
                "recua_tps": median(recua), "recua_spread": spread(recua),
                "llama_tps": median(llama), "llama_spread": spread(llama),
                "ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
                "step_bytes": median(n_bytes) if cell == "decode" else None,
                # Each run's share is of the peak that the run itself measured: on a shared machine the peak changes.
                "recua_memory": median(shares) if cell == "decode" else None,
            })
    return cells, pairs, peaks, sorted(devices)


def explain(cells):
    """Adds the shares of memory and arithmetic to each decode cell, and to every cell what bounds recua in it."""
    prompts = {cell["quant"]: cell["recua_tps"] for cell in cells if cell["cell"] == "prefill"}
    for cell in cells:
        if cell["cell"] == "prefill":
            cell.update(llama_memory=None, arithmetic=None, bound="arithmetic")
            continue
        cell["llama_memory"] = cell["recua_memory"] * cell["llama_tps"] / cell["recua_tps"]
        prompt = prompts.get(cell["quant"])
        cell["arithmetic"] = cell["recua_tps"] / prompt if prompt else None
        memory, arithmetic = cell["recua_memory"], cell["arithmetic"] or 0.0
        if max(memory, arithmetic) < BOUND_SHARE:
            cell["bound"] = "neither"
        else:
            cell["bound"] = "memory" if memory >= arithmetic else "arithmetic"


def judge(args, cells):
    """Adds to each cell its target and verdict. Returns whether no target was missed."""
    for cell in cells:
        wanted = TARGETS.get((args.shape, cell["quant"], args.isa), {}).get((cell["cell"], cell["batch"]))
        as_meant = args.prefill == TARGET_PREFILL if cell["cell"] == "prefill" else args.context == TARGET_CONTEXT
        cell["target"] = wanted if as_meant else None
        cell["reached"] = cell["ratio"] >= cell["target"] if cell["target"] else None
        share = SHARE_TARGETS.get((args.shape, cell["quant"], args.isa))
        if share and as_meant and (cell["cell"], cell["batch"]) == ("decode", 1):
            cell.update(share_target=share, reached=cell["recua_memory"] >= share)
    return not any(cell["reached"] is False for cell in cells)


def machine(args, pairs, peaks, devices):
    """Everything about the run that does not belong to a single cell."""
    date, system, *names = lines(args.work / "machine")
    name = names[0] if names else "unknown processor"
    told = [line for line in lines(args.work / "llama") if re.match(r"(version|built)", line)]
    version = ", ".join(line.removeprefix("version: ") for line in told)
    others = [pair[key] for pair in pairs for key in ("recua_others", "llama_others") if pair[key] is not None]
    return {
        "date": date, "system": system, "processor": name, "cores": args.cores, "threads": args.threads,
        "recua": " ".join(lines(args.work / "recua")), "checkout": " ".join(lines(args.work / "commit")),
        "recua_device": "; ".join(devices), "llama": version or "unknown version",
        "llama_switches": lines(args.work / "switches"), "llama_repack": bool(args.repack),
        "shape": args.shape, "context": args.context, "gen": args.gen, "prefill": args.prefill, "repeats": args.repeats,
        "load_at_start": " ".join(lines(args.work / "load")),
        "others_median": median(others) if others else None, "others_max": max(others) if others else None,
        "peak_bytes_per_s": max(peaks), "peak_bytes_per_s_median": median(peaks),
    }


def percent(share, digits=0):
    return "-" if share is None else f"{share * 100:.{digits}f} %"


def markdown(run, cells, judged):
    others = ""
    if run["others_max"] is not None:
        others = (
            f"; other work took {percent(run['others_median'], 1)} of the machine during a run (median), "
            f"{percent(run['others_max'], 1)} at most"
        )
    checkout = f", checkout {run['checkout']}" if run["checkout"] else ""
    repack = "" if run["llama_repack"] else ", without repacked weights"
    text = [
        f"# recua against llama.cpp, {run['date']}",
        "",
        f"- {run['processor']}, {run['cores']} cores, {run['threads']} threads on both sides; {run['system']}",
        f"- {run['recua']}{checkout}: {run['recua_device']}",
        f"- llama.cpp {run['llama']}{repack}: {', '.join(run['llama_switches']) or 'instruction sets unknown'}",
        f"- shape {run['shape']}, {run['context']} tokens in each sequence's own cache (f16), {run['gen']} timed steps, "
        f"flash attention on; {run['repeats']} pairs a cell, alternately; medians",
        f"- read bandwidth: {run['peak_bytes_per_s_median'] / 1e9:.1f} GB/s, the median of what each recua run measured "
        f"(the best: {run['peak_bytes_per_s'] / 1e9:.1f}); each run's shares are of its own",
        f"- load averages at the start: {run['load_at_start']}{others}",
        "",
    ]
    head = ["model", "cell", "recua t/s", "spread", "llama.cpp t/s", "spread", "ratio", "ratios of the pairs",
            "of peak reading: recua", "llama.cpp", "of prompt rate", "recua is bound by"]
    if judged:
        head += ["target", "verdict"]
    text += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for cell in cells:
        what = f"prompt {run['prefill']}" if cell["cell"] == "prefill" else f"batch {cell['batch']}"
        row = [
            cell["quant"], what,
            f"{cell['recua_tps']:.1f}", percent(cell["recua_spread"]),
            f"{cell['llama_tps']:.1f}", percent(cell["llama_spread"]),
            f"{cell['ratio']:.2f}", f"{cell['ratio_min']:.2f} to {cell['ratio_max']:.2f}",
            percent(cell["recua_memory"]), percent(cell["llama_memory"]), percent(cell["arithmetic"]), cell["bound"],
        ]
        if judged:
            verdict = {None: "-", True: "reached", False: "missed"}[cell["reached"]]
            wanted = f"{cell['target']:.1f}" if cell["target"] else "-"
            if "share_target" in cell:
                wanted = f"{percent(cell['share_target'])} of peak"
            row += [wanted, verdict]
        text.append("| " + " | ".join(row) + " |")
    return "\n".join(text) + "\n"


def file_name(run, isa):
    processor = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", run["processor"].lower())).strip("-")
    return "_".join(part for part in (run["date"], processor, "llama.cpp", isa) if part)


def main():
    args = arguments()
    args.work = Path(args.work)
    cells, pairs, peaks, devices = measure(args, read_runs(args))
    run = machine(args, pairs, peaks, devices)
    explain(cells)
    reached = judge(args, cells)
    if not args.targets:
        for cell in cells:
            del cell["target"], cell["reached"]
    text = markdown(run, cells, args.targets)
    sys.stdout.write(text)
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        name = file_name(run, args.isa)
        (folder / f"{name}.md").write_text(text)
        (folder / f"{name}.json").write_text(json.dumps({"run": run, "cells": cells}, indent=1) + "\n")
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, pairs[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(pairs)
    sys.exit(1 if args.targets and not reached else 0)


if __name__ == "__main__":
    main()

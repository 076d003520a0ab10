"""Held-out accuracy per task of a GGUF file, run by recua, or of a PyTorch checkpoint.

    python evaluate.py F16.gguf Q8_0.gguf Q5_K_M.gguf Q4_K_M.gguf   # through `recua run`, as a Markdown table
    python evaluate.py --checkpoint models/demo                     # PyTorch: F32, and rounded as F16 and Q8_0

An answer is right if it equals the expected text, ignoring leading and trailing white space.
"""
import argparse
import collections
import json
import subprocess
from pathlib import Path

from generate import HELDOUT, TASKS, LETTERWISE, held_out_items


def table(columns):
    """Markdown of {column name: {task: accuracy}}."""
    print("| task | range | " + " | ".join(columns) + " |")
    print("| --- | --- |" + " ---: |" * len(columns))
    for t, (_, _, span) in TASKS.items():
        print(f"| {t} | {span} | " + " | ".join(f"{100 * c[t]:.1f} %" for c in columns.values()) + " |")


def through_recua(recua, model, items, wrong=None):
    """Runs the binary once with every prompt on standard input, one a line."""
    out = subprocess.run([recua, "run", model, "--temp", "0", "--format", "json"], text=True, check=True,
                         input="".join(i["prompt"] + "\n" for i in items), stdout=subprocess.PIPE).stdout
    texts = {o["index"]: o["text"] for o in map(json.loads, out.splitlines())}
    right, n = collections.Counter(), collections.Counter()
    for k, i in enumerate(items):
        ok = texts[k].strip() == i["answer"]
        right[i["task"]] += ok
        n[i["task"]] += 1
        if not ok and wrong:
            print(json.dumps({"model": model, **i, "text": texts[k]}), file=wrong)
    return {t: right[t] / n[t] for t in n}


def in_pytorch(model, encoder, items, wrong=None):
    """Greedy accuracy without a loop: an answer is right if each of its tokens is the argmax after those before it."""
    import torch
    dev = model.token_embd.device
    right, n = collections.Counter(), collections.Counter()
    rows = []
    for i in items:
        p = encoder.prompt(i["prompt"])
        a = (encoder.letters if i["task"] in LETTERWISE else encoder.text)(i["answer"]) + [encoder.im_end]
        rows.append((p, a, i))
    rows.sort(key=lambda x: len(x[0]) + len(x[1]))
    for s in range(0, len(rows), 200):
        part = rows[s:s + 200]
        T = max(len(p) + len(a) for p, a, _ in part)
        x = torch.zeros(len(part), T, dtype=torch.long)
        for k, (p, a, _) in enumerate(part):
            x[k, :len(p) + len(a)] = torch.tensor(p + a)
        with torch.no_grad():
            y = model.logits(x.to(dev)).argmax(-1).cpu()
        for k, (p, a, i) in enumerate(part):
            got = y[k, len(p) - 1:len(p) + len(a) - 1].tolist()
            right[i["task"]] += got == a
            n[i["task"]] += 1
            if got != a and wrong:
                print(json.dumps({**i, "text": encoder.t.decode(got)}), file=wrong)
    return {t: right[t] / n[t] for t in n}


def rounded(model, form):
    """A copy with the weights as the GGUF file of that form holds them (norms stay F32)."""
    import copy
    import torch
    from gguf import GGMLQuantizationType, quants
    m = copy.deepcopy(model)
    with torch.no_grad():
        for p in m.parameters():
            if p.ndim == 2:
                w = p.half().float().cpu().numpy()  # every form is made from the F16 file
                if form == "Q8_0":
                    q = GGMLQuantizationType.Q8_0
                    w = quants.dequantize(quants.quantize(w, q), q)
                p.copy_(torch.from_numpy(w))
    return m


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("models", nargs="*", help="GGUF files, measured through recua")
    ap.add_argument("--recua", default=str(Path(__file__).resolve().parents[2] / "target" / "release" / "recua"))
    ap.add_argument("--checkpoint", help="folder of a PyTorch checkpoint")
    ap.add_argument("--items", type=int, help="that many fresh held-out items a task, not the file's")
    ap.add_argument("--wrong", type=argparse.FileType("w"), help="write the wrong answers there")
    a = ap.parse_args()
    if a.items:
        items = [i for t in TASKS for i in held_out_items(t, a.items, seed=2)]
    else:
        items = [json.loads(l) for l in open(HELDOUT)]
    columns = {Path(m).stem: through_recua(a.recua, m, items, a.wrong) for m in a.models}
    if a.checkpoint:
        from model import Model, quantized
        from tokenizer import Encoder
        m, e = Model.load(a.checkpoint), Encoder()
        columns["F32"] = in_pytorch(m, e, items, a.wrong)
        for f in ("F16", "Q8_0"):
            columns[f] = in_pytorch(rounded(m, f), e, items)
        import torch
        with torch.no_grad():
            for p in (p for p in m.parameters() if p.ndim == 2):
                p.copy_(quantized(p, 6 if p is m.token_embd else 4))
        columns["plain 4-bit"] = in_pytorch(m, e, items)
    table(columns)


if __name__ == "__main__":
    main()

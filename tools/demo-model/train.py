"""Trains the demo model; needs PyTorch and, for the real run, one large GPU.

    python train.py --minutes 9           # writes models/demo/model-{0,1}.npz

Worker processes generate conversations all the time; a step takes rows that were not used
before while there are any, otherwise random earlier ones. Muon trains the matrices, AdamW the
rest. The loss is on the assistant's tokens; conversations packed into one row do not see each
other. After the fraction --round-from of the time, every step rounds a random half of the
matrices to 4 bits, so that the model tolerates quantization.
"""
import argparse
import functools
import json
import math
import multiprocessing as mp
import os
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

from generate import TASKS, LETTERWISE, conversation, held_out_items
from tokenizer import Encoder

LOSS, START = 1 << 14, 1 << 13  # flags on a token: is a target; begins a conversation


@functools.cache
def worker_encoder():
    return Encoder()


def rows(job):
    """Packed training rows of one seed: int16 [n, length]."""
    seed, n, length = job
    e, r = worker_encoder(), random.Random(seed)
    out = np.zeros((n, length), np.int16)
    for k in range(n):
        row = []
        while len(row) < length:
            system, turns = conversation(r)
            at = len(row)
            if system:
                row += e.message("system", e.text(system))
            for q, a, letters in turns:
                row += e.prompt(q) if q else []
                row += [t | LOSS for t in (e.letters if letters else e.text)(a) + [e.im_end]] + e.newline
            row[at] |= START
        out[k] = row[:length]
    return out


class Muon:
    """Orthogonalized momentum; matrices of one shape are updated together."""

    def __init__(self, params, decay):
        import torch
        groups = {}
        for p in params:
            groups.setdefault(p.shape, []).append(p)
        self.groups = [(ps, torch.zeros(len(ps), *s, device=ps[0].device)) for s, ps in groups.items()]
        self.decay = decay
        self.orthogonal = torch.compile(orthogonal, dynamic=False) if params[0].is_cuda else orthogonal

    def step(self, lr):
        import torch
        for ps, m in self.groups:
            g = torch.stack([p.grad for p in ps])
            m.lerp_(g, 0.05)
            u = self.orthogonal(g.lerp(m, 0.95))
            u = u * (0.2 * max(u.shape[-2:]) ** 0.5)
            torch._foreach_mul_(ps, 1 - lr * self.decay)
            torch._foreach_add_(ps, list(u.float().unbind(0)), alpha=-lr)


def orthogonal(g):
    x = g.bfloat16()
    flip = x.shape[-2] > x.shape[-1]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--minutes", type=float, default=9)
    ap.add_argument("--batch", type=int, default=64, help="rows a step")
    ap.add_argument("--length", type=int, default=1024, help="tokens a row")
    ap.add_argument("--lr", type=float, default=5e-3, help="Muon's; AdamW's is 0.4 of it")
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--round-from", type=float, default=0.4)
    ap.add_argument("--stable", type=float, default=0.35, help="share of the time before the rate falls")
    ap.add_argument("--workers", type=int, default=max(min(mp.cpu_count() - 2, 8), 1))
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--init", help="folder of a checkpoint to go on from")
    ap.add_argument("--attention", choices=["flex", "dense"], default=None)
    ap.add_argument("--backend", default="inductor", help="torch.compile's; on a CPU nothing is compiled but for another one")
    ap.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "demo")
    a = ap.parse_args()
    began = time.time()

    shard = 16 if a.minutes < 0.5 else 512
    ctx = mp.get_context("fork")
    workers = ctx.Pool(a.workers, os.nice, (19,))  # before CUDA starts
    shards = workers.imap_unordered(rows, ((a.seed * 10**6 + i, shard, a.length) for i in range(10**5)))

    import torch
    import torch.nn.functional as F
    from evaluate import in_pytorch
    from model import Model
    torch.manual_seed(a.seed)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if dev == "cuda" else torch.float32
    flex = (a.attention or ("flex" if dev == "cuda" else "dense")) == "flex"
    pool = torch.zeros(4_000_000 if dev == "cuda" else 2000, a.length, dtype=torch.int16, device=dev)
    have = 0

    def receive():
        nonlocal have
        for s in shards:
            s = torch.from_numpy(s)
            if have + len(s) > len(pool):
                workers.terminate()
                return
            pool[have:have + len(s)] = s.to(dev)
            have += len(s)

    threading.Thread(target=receive, daemon=True).start()
    model = (Model.load(a.init) if a.init else Model()).to(dev)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n != "token_embd"]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or n == "token_embd"]
    muon = Muon(matrices, a.decay)
    adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=dev == "cuda")
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {dev}", flush=True)

    if flex:
        from torch.nn.attention.flex_attention import BlockMask, flex_attention

    def blocks(doc):
        """For flex attention: which blocks of keys each block of queries needs, and the other way round."""
        need = (doc[:, None, 127::128] >= doc[:, ::128, None]).tril()[:, None]
        out = []
        for n in (need, need.mT):
            out += [n.sum(-1, dtype=torch.int32), n.int().argsort(dim=-1, descending=True, stable=True).int()]
        return out

    def attention(doc, masks):
        """Causal within one conversation; doc numbers the conversations of each row."""
        if not flex:
            mask = (doc[:, :, None] == doc[:, None]).tril()[:, None]
            return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        kn, ki, qn, qi = masks
        mask = BlockMask((a.length, a.length), kn, ki, None, None, qn, qi, None, None, (128, 128),
                         lambda b, h, i, j: (i >= j) & (doc[b, i] == doc[b, j]))
        return lambda q, k, v: flex_attention(q, k, v, block_mask=mask, enable_gqa=True)

    targets = a.batch * a.length * 2 // 5  # at most so many tokens of a step count

    def forward(x, doc, masks, at, y, gate):
        h, e = model(x, attention(doc, masks), gate, dtype)
        return F.cross_entropy(F.linear(h.flatten(0, 1)[at], e).float(), y, ignore_index=-1)

    step_loss = torch.compile(forward, dynamic=False, backend=a.backend) if dev == "cuda" or a.backend != "inductor" else forward
    encoder = Encoder()
    items = [i for t in TASKS for i in held_out_items(t, 100, seed=3)]

    def report(step):
        model.eval()
        acc = in_pytorch(model, encoder, items)
        print(f"  step {step} held out: mean {np.mean(list(acc.values())):.3f}  " +
              " ".join(f"{t} {v:.2f}" for t, v in sorted(acc.items(), key=lambda x: x[1]) if v < 0.995), flush=True)

    while have < 2 * a.batch:
        time.sleep(0.1)
    used = step = warm = 0
    start = t0 = time.time()
    limit = began + 60 * a.minutes - (12 if dev == "cuda" else 0)
    losses, next_report = [], time.time() + 60
    while (now := time.time()) < limit:
        n = have
        if used + a.batch <= n:
            r = pool[used:used + a.batch]
            used += a.batch
        else:
            r = pool[torch.randint(n, (a.batch,), device=dev)]
        r = r.int()
        x, doc = (r & 2047).long(), (r & START).ne(0).cumsum(1)
        y = torch.where(r & LOSS != 0, x, -1).roll(-1, 1)
        y[:, -1] = -1
        y = y.flatten()
        at = (y >= 0).int().argsort(descending=True, stable=True)[:targets]
        p = (now - start) / (limit - start)
        gate = (torch.rand(len(model.matrices), device=dev) < (0.5 if p >= a.round_from else 0.0)).float()
        loss = step_loss(x, doc, blocks(doc) if flex else None, at, y[at], gate)
        loss.backward()
        lr = a.lr * min(1, (step + 1) / 100) * min(1, max((1 - p) / (1 - a.stable), 0.01))
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for g in adam.param_groups:
            g["lr"] = 0.4 * lr
        adam.step()
        with torch.no_grad():
            muon.step(lr)
        model.zero_grad(set_to_none=True)
        step += 1
        losses.append(loss.detach())
        if step == 5:  # compiled
            losses[-1].item()
            warm = time.time()
            print(f"5 steps after {warm - began:.0f} s", flush=True)
        if step % (200 if dev == "cuda" else 5) == 0:
            l = torch.stack(losses).mean().item()
            losses.clear()
            now = time.time()
            if not math.isfinite(l):
                sys.exit("the loss is not finite")
            print(f"{now - began:.0f} s step {step} loss {l:.4f} lr {lr:.5f} {(step - 5) * a.batch * a.length / (now - warm) / 1e6:.2f} M tok/s, "
                  f"{have * a.length / 1e6:.0f} M tokens made, {used * a.length / 1e6:.0f} M used fresh, "
                  f"{(y >= 0).float().mean().item():.2f} targets", flush=True)
            if now > next_report:
                report(step)
                next_report = now + 60
                model.save(a.out)
    workers.terminate()
    model.save(a.out)
    report(step)
    print(f"{step} steps, {step * a.batch * a.length / 1e6:.0f} M tokens ({have * a.length / 1e6:.0f} M different), {(time.time() - began) / 60:.1f} minutes")
    if dev == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most")


if __name__ == "__main__":
    main()

"""The demo model: a Llama of 5 million parameters in plain PyTorch (no command of its own)."""
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int = 1024
    dim: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    ffn: int = 512
    context: int = 1024
    eps: float = 1e-5
    rope_base: float = 10000.0


def quantized(w, bits):
    """w rounded in blocks of 32 to `bits` bits with a scale and a minimum, as K-quants do."""
    b = w.float().view(w.shape[0], -1, 32)
    lo = b.amin(-1, keepdim=True).clamp(max=0)
    scale = ((b.amax(-1, keepdim=True) - lo) / (2 ** bits - 1)).clamp(min=1e-8)
    return (((b - lo) / scale).round() * scale + lo).view_as(w)


def rope(x, cos, sin):
    """Rotates neighbouring pairs, the order in which GGUF's `llama` stores them."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).type_as(x)


class Model(nn.Module):
    """Its parameters have GGUF's names, with underscores for dots."""

    def __init__(self, c=Config()):
        super().__init__()
        self.c = c
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        shapes = {"attn_q": (q, c.dim), "attn_k": (kv, c.dim), "attn_v": (kv, c.dim), "attn_output": (c.dim, q),
                  "ffn_gate": (c.ffn, c.dim), "ffn_up": (c.ffn, c.dim), "ffn_down": (c.dim, c.ffn)}
        self.token_embd = nn.Parameter(torch.randn(c.vocab, c.dim) * 0.04)
        self.output_norm = nn.Parameter(torch.ones(c.dim))
        for i in range(c.layers):
            for n in ("attn_norm", "ffn_norm"):
                self.register_parameter(f"blk_{i}_{n}", nn.Parameter(torch.ones(c.dim)))
            for n, s in shapes.items():
                std = 0.0 if n in ("attn_output", "ffn_down") else s[1] ** -0.5
                self.register_parameter(f"blk_{i}_{n}", nn.Parameter(torch.randn(s) * std))
        f = c.rope_base ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        a = torch.outer(torch.arange(c.context).float(), f)
        self.register_buffer("cos", a.cos(), persistent=False)
        self.register_buffer("sin", a.sin(), persistent=False)
        self.matrices = [n for n, p in self.named_parameters() if p.ndim == 2]

    def weight(self, name, gate, dtype):
        """The weight, rounded to a few bits for this step where its gate is 1 (the gradient passes through)."""
        w = getattr(self, name)
        if gate is not None:
            bits = 6 if name == "token_embd" else 4
            w = w + (gate[self.matrices.index(name)] * (quantized(w, bits) - w)).detach()
        return w.to(dtype)

    def norm(self, x, name):
        return F.rms_norm(x.float(), (x.shape[-1],), getattr(self, name).float(), self.c.eps).to(x.dtype)

    def forward(self, tokens, attend, gate=None, dtype=torch.float32):
        """Final hidden states and the output matrix; attend(q, k, v) is the masked attention."""
        c = self.c
        B, T = tokens.shape
        cos, sin = self.cos[:T], self.sin[:T]
        embd = self.weight("token_embd", gate, dtype)
        x = F.embedding(tokens, embd)
        for i in range(c.layers):
            def w(n):
                return self.weight(f"blk_{i}_{n}", gate, dtype)
            h = self.norm(x, f"blk_{i}_attn_norm")
            q = F.linear(h, w("attn_q")).view(B, T, c.heads, -1).transpose(1, 2)
            k = F.linear(h, w("attn_k")).view(B, T, c.kv_heads, -1).transpose(1, 2)
            v = F.linear(h, w("attn_v")).view(B, T, c.kv_heads, -1).transpose(1, 2)
            o = attend(rope(q, cos, sin), rope(k, cos, sin), v)
            x = x + F.linear(o.transpose(1, 2).reshape(B, T, -1), w("attn_output"))
            h = self.norm(x, f"blk_{i}_ffn_norm")
            x = x + F.linear(F.silu(F.linear(h, w("ffn_gate"))) * F.linear(h, w("ffn_up")), w("ffn_down"))
        return self.norm(x, "output_norm"), embd

    def logits(self, tokens):
        """Logits of whole sequences, causal."""
        def attend(q, k, v):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        h, e = self(tokens, attend)
        return F.linear(h, e)

    def save(self, folder):
        """Two files, config in both, so that none is larger than 16 MB."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        w = {n: p.detach().float().cpu().numpy() for n, p in self.named_parameters()}
        names = sorted(w)
        for i in range(2):
            np.savez(Path(folder) / f"model-{i}.npz", **{n: w[n] for n in names[i::2]},
                     **{"config." + k: v for k, v in asdict(self.c).items()})

    @staticmethod
    def load(folder):
        z = {}
        for i in range(2):
            z.update(np.load(Path(folder) / f"model-{i}.npz"))
        m = Model(Config(**{k[7:]: z.pop(k).item() for k in list(z) if k.startswith("config.")}))
        m.load_state_dict({n: torch.from_numpy(a) for n, a in z.items()})
        return m

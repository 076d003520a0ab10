"""Trains the demo model's byte-level BPE vocabulary on generated conversations.

    python tokenizer.py           # writes models/demo/tokenizer.json

The vocabulary has three control tokens, the 256 bytes and as many merges as fill 1024. The
words are split as `tokenizer.ggml.pre = "qwen2"` says: every digit is a token of its own.
"""
import random
from pathlib import Path

import regex
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from generate import conversation

VOCAB = 1024
FILE = Path(__file__).resolve().parents[2] / "models" / "demo" / "tokenizer.json"
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, IM_START, IM_END]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
            "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def train(conversations=60_000, seed=7):
    def texts():
        r = random.Random(seed)
        for _ in range(conversations):
            system, turns = conversation(r)
            if system:
                yield "system\n" + system
            for q, a, letters in turns:
                if q:
                    yield "user\n" + q
                    yield "\n"
                    yield "assistant\n"
                yield " ".join(a) if letters else a

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


class Encoder:
    """The tokenizer with a cache of pieces, which makes generating fast."""

    def __init__(self, path=FILE):
        self.t = Tokenizer.from_file(str(path))
        self.split = regex.compile(SPLIT)
        self.cache = {}
        self.end_of_text, self.im_start, self.im_end = (self.t.token_to_id(s) for s in SPECIAL)
        self.newline = self.text("\n")
        self.role = {r: [self.im_start] + self.text(r + "\n") for r in ("system", "user", "assistant")}

    def text(self, s):
        out = []
        for p in self.split.findall(s):
            ids = self.cache.get(p)
            if ids is None:
                if len(self.cache) > 200_000:
                    self.cache.clear()
                ids = self.cache[p] = self.t.encode(p, add_special_tokens=False).ids
            out += ids
        return out

    def letters(self, s):
        return [i for c in s for i in self.text(c)]

    def message(self, role, ids):
        return self.role[role] + ids + [self.im_end] + self.newline

    def prompt(self, q):
        """The chat template's output for one user message, up to where the answer begins."""
        return self.message("user", self.text(q)) + self.role["assistant"]


def main():
    t = train()
    FILE.parent.mkdir(parents=True, exist_ok=True)
    t.save(str(FILE))
    e = Encoder()
    r = random.Random(8)
    n = 0
    for _ in range(2000):
        for q, a, _ in conversation(r)[1]:
            for s in (q or "", a):
                ids = e.text(s)
                assert ids == t.encode(s, add_special_tokens=False).ids and t.decode(ids) == s, s
                n += len(ids)
    print(f"{FILE}: {t.get_vocab_size()} tokens; {n} checked")


if __name__ == "__main__":
    main()

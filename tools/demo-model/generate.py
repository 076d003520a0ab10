"""Seeded generator of the demo model's training conversations and held-out items.

    python generate.py            # writes testdata/demo/heldout.jsonl (200 items a task)
    python generate.py --show 40  # prints some training conversations instead

A hash of an item's canonical content (its key, such as "add|17|25", the same for every
phrasing and for both orders of a sum) decides whether the item is held out. One in ten is,
and no training conversation ever asks a held-out item.
"""
import argparse
import json
import random
import string
import zlib
from pathlib import Path

from words import (ADJECTIVES, ANIMALS, CITIES, CODAS, COLORS, COMMON, ITEMS, NAMES, ONSETS,
                   PEOPLE, VOWELS)

HELDOUT = Path(__file__).resolve().parents[2] / "testdata" / "demo" / "heldout.jsonl"
ITEM_NAMES = [p for _, p in ITEMS]


def held_out(key):
    return zlib.crc32(("recua demo|" + key).encode()) % 10 == 0


# ---- words, names, numbers ------------------------------------------------------------

def made_up(r, lo, hi):
    """A pronounceable word that is in no list."""
    while True:
        w = ""
        for _ in range(r.randint(1, 4)):
            w += r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS)
            if len(w) >= lo and r.random() < 0.5:
                break
        if lo <= len(w) <= hi:
            return w


def word(r, lo=3, hi=10):
    """A word: half the time from the list, otherwise made up, spliced from two of the list, or random letters."""
    while True:
        x = r.random()
        if x < 0.5:
            w = r.choice(COMMON)
        elif x < 0.77:
            return made_up(r, lo, hi)
        elif x < 0.92:
            a, b = r.choice(COMMON), r.choice(COMMON)
            w = a[:r.randint(1, len(a))] + b[r.randint(0, len(b) - 1):]
        elif x < 0.96:
            s = r.choices(string.ascii_lowercase, k=4)
            w = "".join(r.choice(s) for _ in range(r.randint(lo, hi)))
        else:
            w = "".join(r.choices(string.ascii_lowercase, k=r.randint(lo, hi)))
        if lo <= len(w) <= hi:
            return w


def list_words(r, n, fresh=0.2):
    """n different words, mostly from the list."""
    out = []
    while len(out) < n:
        w = made_up(r, 3, 8) if r.random() < fresh else r.choice(COMMON)
        if w not in out:
            out.append(w)
    return out


def person(r):
    return r.choice(NAMES) if r.random() < 0.6 else made_up(r, 3, 7).capitalize()


def city(r):
    return r.choice(CITIES) if r.random() < 0.6 else made_up(r, 4, 8).capitalize()


def num(r):
    """A number from 0 to 999; short ones occur more often than by chance."""
    return r.randint(0, (9, 99, 999, 999)[r.randint(0, 3)])


def num4(r):
    """A number from 0 to 9999, likewise."""
    return r.randint(0, (99, 999, 9999, 9999, 9999)[r.randint(0, 4)])


ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def spelled(n):
    """42 -> forty-two; 3105 -> three thousand one hundred five."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    unit, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{spelled(n // unit)} {name}" + (" " + spelled(n % unit) if n % unit else "")


def quoted(r, w):
    return f'"{w}"' if r.random() < 0.25 else f"'{w}'" if r.random() < 0.1 else w


def style(r, s):
    """Small differences in how people type: capital, final stop, please."""
    x = r.random()
    if x < 0.12 and s[0].isupper():
        s = s[0].lower() + s[1:]
    elif x < 0.16 and s[0].isupper() and s[-1] == ".":
        s = "Please " + s[0].lower() + s[1:]
    elif x < 0.18 and s[0].isupper() and s[-1] == "?":
        s = "Tell me: " + s[0].lower() + s[1:]
    if s[-1] in ".?" and r.random() < 0.12:
        s = s[:-1].rstrip()
    return s


# ---- graded tasks: each returns key, prompt, answer -----------------------------------

def t_add(r):
    a, b = num(r), num(r)
    x = r.random()
    if x < 0.12:
        n, it = person(r), r.choice(ITEM_NAMES)
        p = r.choice([f"{n} has {a} {it} and gets {b} more. How many {it} does {n} have now?",
                      f"There are {a} {it} in one box and {b} {it} in another. How many {it} are there in all?",
                      f"I have {a} {it} and buy {b} more. How many {it} do I have?"])
    else:
        p = r.choice([f"What is {a} plus {b}?", f"What is {a} plus {b}?", f"{a} + {b} = ?", f"Add {a} and {b}.",
                      f"What is {a} + {b}?", f"{a} + {b}", f"{a}+{b}", f"{a}+{b}=", f"{a} + {b} =", f"{a} plus {b}",
                      f"How much is {a} plus {b}?", f"Compute {a} + {b}.", f"What is the sum of {a} and {b}?",
                      f"Calculate the sum of {a} and {b}.", f"What is {a}+{b}?", f"Add {b} to {a}."])
    return f"add|{min(a, b)}|{max(a, b)}", style(r, p), str(a + b)


def t_subtract(r):
    a, b = num(r), num(r)
    a, b = max(a, b), min(a, b)
    if r.random() < 0.12:
        n, it = person(r), r.choice(ITEM_NAMES)
        p = r.choice([f"{n} has {a} {it} and gives away {b}. How many {it} are left?",
                      f"I have {a} {it} and lose {b}. How many {it} do I have left?"])
    else:
        p = r.choice([f"What is {a} minus {b}?", f"What is {a} minus {b}?", f"{a} - {b} = ?", f"Subtract {b} from {a}.",
                      f"What is {a} - {b}?", f"{a} - {b}", f"{a}-{b}", f"{a}-{b}=", f"{a} - {b} =", f"{a} minus {b}",
                      f"How much is {a} minus {b}?", f"Compute {a} - {b}.", f"Take {b} away from {a}.",
                      f"What is the difference between {a} and {b}?"])
    return f"subtract|{a}|{b}", style(r, p), str(a - b)


def t_double(r):
    a = num4(r)
    p = r.choice([f"Double {a}.", f"What is twice {a}?", f"What is 2 times {a}?", f"What is the double of {a}?",
                  f"Double the number {a}.", f"How much is twice {a}?", f"2 * {a} = ?"])
    return f"double|{a}", style(r, p), str(2 * a)


def t_next_number(r):
    a = num4(r) + 1
    a = a if r.random() < 0.7 else max(a // 10 * 10 + r.choice((-1, 0)), 1)
    if r.random() < 0.5:
        p = r.choice([f"What number comes after {a}?", f"Which number follows {a}?", f"What is the next number after {a}?",
                      f"Count on by one from {a}."])
        return f"after|{a}", style(r, p), str(a + 1)
    p = r.choice([f"What number comes before {a}?", f"Which number is just before {a}?",
                  f"What is the number before {a}?", f"Count back by one from {a}."])
    return f"before|{a}", style(r, p), str(a - 1)


def numbers(r, lo):
    """Different numbers, often close to each other."""
    n, out = r.randint(lo, 5), []
    near = num(r) if r.random() < 0.4 else None
    while len(out) < n:
        x = num(r) if near is None or r.random() < 0.3 else min(max(near + r.randint(-60, 60), 0), 999)
        if x not in out:
            out.append(x)
    return out


def t_extreme(r, name, adj, f):
    ns = numbers(r, 2)
    l = ", ".join(map(str, ns))
    if len(ns) == 2:
        c = {"largest": "larger", "smallest": "smaller"}[adj]
        p = r.choice([f"Which number is {c}, {ns[0]} or {ns[1]}?", f"Which is {c}: {ns[0]} or {ns[1]}?",
                      f"What is the {adj} of {ns[0]} and {ns[1]}?"])
    else:
        p = r.choice([f"What is the {adj} of {l}?", f"Which is the {adj} number: {l}?", f"Find the {adj} number in this list: {l}.",
                      f"Find the {adj} of {l}.", f"What is the {adj} number in {l}?", f"Pick the {adj} number: {l}"])
    return f"{name}|" + "|".join(map(str, sorted(ns))), style(r, p), str(f(ns))


def t_largest(r):
    return t_extreme(r, "largest", "largest", max)


def t_smallest(r):
    return t_extreme(r, "smallest", "smallest", min)


def t_sort_numbers(r):
    ns = numbers(r, 3)
    l = ", ".join(map(str, ns))
    p = r.choice([f"Sort these numbers: {l}.", f"Sort the numbers {l}.", f"Put these numbers in order: {l}.",
                  f"Sort from smallest to largest: {l}", f"Arrange in rising order: {l}.", f"Sort {l}."])
    ns.sort()
    return "sort_numbers|" + "|".join(map(str, ns)), style(r, p), ", ".join(map(str, ns))


def t_parity(r):
    a = num4(r)
    if r.random() < 0.3:
        k = r.choice(("even", "odd"))
        p = r.choice([f"Is {a} {k}?", f"Is {a} an {k} number?", f"Is the number {a} {k}?"])
        return f"parity|{a}", style(r, p), ("no", "yes")[(k == "odd") == (a % 2 == 1)]
    p = r.choice([f"Is {a} odd or even?", f"Is {a} even or odd?", f"Is the number {a} odd or even?", f"Odd or even: {a}?",
                  f"Say whether {a} is odd or even."])
    return f"parity|{a}", style(r, p), ("even", "odd")[a % 2]


def t_number_to_words(r):
    a = num4(r)
    p = r.choice([f"Write {a} in words.", f"Write the number {a} in words.", f"Spell out {a}.", f"Spell out the number {a}.",
                  f"How do you write {a} in words?", f"What is {a} in words?", f"{a} in words"])
    return f"number_to_words|{a}", style(r, p), spelled(a)


def t_words_to_number(r):
    a = num4(r)
    w = spelled(a)
    p = r.choice([f"Write {w} in digits.", f"Write the number {w} in digits.", f"What is {w} in digits?", f"Write {w} as a number.",
                  f"How do you write {w} in digits?", f"{w[0].upper() + w[1:]} in digits", f"Convert {w} to digits."])
    return f"words_to_number|{a}", style(r, p), str(a)


def t_spell(r):
    w = word(r)
    q = quoted(r, w)
    p = r.choice([f"Spell {q}.", f"Spell the word {q}.", f"How do you spell {q}?", f"Spell {q} letter by letter.",
                  f"Give the letters of {q}.", f"Spell {q} with hyphens.", f"How is the word {q} spelled?"])
    return f"spell|{w}", style(r, p), "-".join(w)


def t_reverse(r):
    w = word(r, 3, 8)
    q = quoted(r, w)
    p = r.choice([f"Reverse {q}.", f"Reverse the word {q}.", f"Write {q} backwards.", f"Write the word {q} backwards.",
                  f"What is {q} backwards?", f"What is {q} spelled backwards?", f"Turn the word {q} around.",
                  f"What is the reverse of {q}?"])
    return f"reverse|{w}", style(r, p), w[::-1]


def t_letter(r):
    w = word(r)
    q = quoted(r, w)
    i, pos = r.choice([(0, "first"), (1, "second"), (2, "third"), (-1, "last")])
    p = r.choice([f"What is the {pos} letter of {q}?", f"What is the {pos} letter of the word {q}?", f"Which letter is {pos} in {q}?",
                  f"Give the {pos} letter of {q}.", f"Name the {pos} letter in the word {q}."])
    return f"letter|{pos}|{w}", style(r, p), w[i]


def some_letter(r, w):
    x = r.random()
    if x < 0.3:
        return max(w, key=w.count)
    return r.choice(w) if x < 0.65 else r.choice(string.ascii_lowercase)


def t_count_letter(r):
    w = word(r)
    c = some_letter(r, w)
    q, d = quoted(r, w), quoted(r, c)
    p = r.choice([f"How many times does the letter {d} occur in {q}?", f"Count the letter {d} in {q}.",
                  f"How often does {d} appear in the word {q}?", f"Count how many times {d} is in {q}.",
                  f"How many {d} letters are in {q}?", f"How many times is the letter {d} in the word {q}?",
                  f"How many {c}'s are in {q}?", f"How many {c}s are in the word {q}?"])
    return f"count_letter|{c}|{w}", style(r, p), str(w.count(c))


def t_contains(r):
    w = word(r)
    c = r.choice(w) if r.random() < 0.5 else r.choice(string.ascii_lowercase)
    q, d = quoted(r, w), quoted(r, c)
    p = r.choice([f"Does {q} contain the letter {d}?", f"Does the word {q} contain the letter {d}?", f"Is there a letter {d} in {q}?",
                  f"Is the letter {d} in the word {q}?", f"Does {q} have the letter {d} in it?"])
    return f"contains|{c}|{w}", style(r, p), "yes" if c in w else "no"


def t_length(r):
    w = word(r)
    q = quoted(r, w)
    p = r.choice([f"How many letters are in {q}?", f"How many letters does {q} have?", f"How many letters are there in the word {q}?",
                  f"Count the letters of {q}.", f"How long is the word {q}?", f"What is the length of the word {q}?"])
    return f"length|{w}", style(r, p), str(len(w))


def t_uppercase(r):
    w = word(r)
    q = quoted(r, w)
    p = r.choice([f"Write {q} in capital letters.", f"Write {q} in capitals.", f"Write the word {q} in upper case.",
                  f"Put {q} in capital letters.", f"Convert {q} to upper case.", f"Uppercase the word {q}."])
    return f"uppercase|{w}", style(r, p), w.upper()


def t_sort_words(r):
    n = r.randint(3, 5)
    ws = list_words(r, n)
    if r.random() < 0.35:  # a pair with the same beginning
        same = [w for w in COMMON if w[0] == ws[0][0] and w not in ws]
        ws[1] = r.choice(same) if same else ws[1]
        r.shuffle(ws)
    l = ", ".join(ws)
    p = r.choice([f"Sort these words: {l}.", f"Sort the words {l}.", f"Put these words in alphabetical order: {l}.",
                  f"Sort alphabetically: {l}", f"Arrange in alphabetical order: {l}.", f"Sort {l}."])
    ws.sort()
    return "sort_words|" + "|".join(ws), style(r, p), ", ".join(ws)


ORDINALS = ["first", "second", "third", "fourth", "fifth", "last"]


def t_nth_word(r):
    ws = list_words(r, r.randint(3, 6))
    i = r.randint(0, min(len(ws), 6) - 1)
    o = "last" if i == len(ws) - 1 and (i == 5 or r.random() < 0.7) else ORDINALS[i]
    l = r.choice([", ", ", ", " "]).join(ws)
    p = r.choice([f"What is the {o} word in this list: {l}?", f"What is the {o} word of: {l}", f"Which word is {o}: {l}?",
                  f"Give the {o} word of this list: {l}.", f"Pick the {o} word: {l}", f"Name the {o} word: {l}."])
    return f"nth_word|{o}|" + "|".join(ws), style(r, p), ws[i]


def t_count_words(r):
    ws = list_words(r, r.randint(1, 8))
    if r.random() < 0.5:
        l = " ".join(ws)
        p = r.choice([f"How many words are in: {l}", f"Count the words: {l}", f'How many words are in "{l}"?',
                      f"How many words are there in this line: {l}?"])
    else:
        l = ", ".join(ws)
        p = r.choice([f"How many words are in this list: {l}?", f"How many items are in this list: {l}?",
                      f"Count the items: {l}.", f"How long is this list: {l}?"])
    return "count_words|" + "|".join(ws), style(r, p), str(len(ws))


def phrase(r):
    x = r.random()
    if x < 0.6:
        s = " ".join(list_words(r, r.randint(1, 7)))
    elif x < 0.9:
        s = r.choice([f"the {r.choice(ADJECTIVES)} {r.choice(ANIMALS)} sees a {r.choice(COLORS)} {r.choice(ITEMS)[0]}",
                      f"I like {r.choice(ITEM_NAMES)} and {r.choice(ITEM_NAMES)}", f"{person(r)} lives in {city(r)}",
                      f"we have {num(r)} {r.choice(ITEM_NAMES)}", f"hello {person(r)}, how are you",
                      f"my {r.choice(ANIMALS)} is called {person(r)}"])
    else:
        s = "".join(r.choices(string.ascii_letters + string.digits + "!#$%&()*+-/<=>@[]^_{|}~;:", k=r.randint(3, 12)))
        return s
    s = s[0].upper() + s[1:] if r.random() < 0.4 else s
    return s + r.choice(".!?.") if r.random() < 0.25 else s


def t_repeat(r):
    if r.random() < 0.35:
        w, n = word(r, 3, 8), r.randint(2, 5)
        q, t = quoted(r, w), ONES[n] if r.random() < 0.7 else str(n)
        p = r.choice([f"Say {q} {t} times.", f"Repeat the word {q} {t} times.", f"Write {q} {t} times.", f"Repeat {q} {t} times."])
        return f"times|{n}|{w}", style(r, p), " ".join([w] * n)
    s = phrase(r)
    p = r.choice([f"Repeat after me: {s}", f"Say this: {s}", f"Repeat: {s}", f'Say "{s}"', f"Copy this line: {s}",
                  f'Repeat this: "{s}"', f"Echo: {s}"])
    return f"repeat|{s}", p, s


def t_json_person(r):
    n, a, c = person(r), r.randint(1, 99), city(r)
    s = r.choice([f"{n} is {a} years old and lives in {c}.", f"{n}, {a}, lives in {c}.", f"{n} from {c} is {a}.",
                  f"My name is {n}, I am {a} and I live in {c}.", f"I am {n}. I am {a} years old and my home is {c}.",
                  f"In {c} lives {n}, who is {a}.", f"{n} ({a}) comes from {c}.", f"At the age of {a}, {n} moved to {c}.",
                  f"{c} is the home of {n}, aged {a}.", f"{n} turned {a} today in {c}.", f"A {a}-year-old called {n} lives in {c}.",
                  f"{n} has lived in {c} for all of {a} years.", f"Name: {n}, age: {a}, city: {c}", f"{a} years old, {n} works in {c}."])
    p = r.choice([f"Fill a JSON record with name, age and city: {s}", f"Turn this into JSON with name, age and city: {s}",
                  f"Extract name, age and city as JSON. {s}", f"Write name, age and city as JSON: {s}",
                  f"{s} Give the name, age and city as JSON.", f"Fill in the JSON record (name, age, city): {s}"])
    return f"json_person|{n}|{a}|{c}", p, json.dumps({"name": n, "age": a, "city": c})


def t_json_order(r):
    k, c = r.randint(1, 99), city(r)
    one, many = r.choice(ITEMS)
    it = one if k == 1 else many
    s = r.choice([f"Send {k} {it} to {c}.", f"Please ship {k} {it} to {c}.", f"I need {k} {it} in {c}.", f"{k} {it} for {c}, please.",
                  f"The shop in {c} wants {k} {it}.", f"{c} ordered {k} {it}.", f"Our {c} office asks for {k} {it}.",
                  f"We sold {k} {it} to a customer in {c}.", f"To {c}: {k} {it}.", f"Can I have {k} {it} delivered to {c}?"])
    p = r.choice([f"Fill a JSON record with item, count and city: {s}", f"Turn this order into JSON with item, count and city: {s}",
                  f"Extract item, count and city as JSON. {s}", f"Write the order as JSON (item, count, city): {s}",
                  f"{s} Give the item, count and city as JSON."])
    return f"json_order|{it}|{k}|{c}", p, json.dumps({"item": it, "count": k, "city": c})


def t_read(r):
    n = r.randint(2, 3)
    ns, cs, ags, its = [], [], r.sample(range(1, 100), n), r.sample(ITEM_NAMES, n)
    while len(ns) < n:
        x = person(r)
        ns += [x] if x not in ns else []
    while len(cs) < n:
        x = city(r)
        cs += [x] if x not in cs else []
    i = r.randrange(n)
    kind = r.randint(0, 2)
    if kind == 0:
        fs = [r.choice([f"{x} lives in {c}.", f"The home of {x} is {c}."]) for x, c in zip(ns, cs)]
        q, a = r.choice([(f"Where does {ns[i]} live?", cs[i]), (f"Who lives in {cs[i]}?", ns[i])])
    elif kind == 1:
        fs = [r.choice([f"{x} is {g} years old.", f"{x} is {g}."]) for x, g in zip(ns, ags)]
        q, a = r.choice([(f"How old is {ns[i]}?", str(ags[i])), (f"Who is {ags[i]} years old?", ns[i])])
    else:
        fs = [r.choice([f"{x} has the {t}.", f"The {t} belong to {x}."]) for x, t in zip(ns, its)]
        q, a = r.choice([(f"What does {ns[i]} have?", "the " + its[i]), (f"Who has the {its[i]}?", ns[i])])
    p = " ".join(fs + [q]) if r.random() < 0.8 else q + " " + " ".join(fs)
    return "read|" + p, p, a


# task: generator, share of training conversations, range as the README states it
TASKS = {
    "add": (t_add, 9, "a + b, both 0 to 999, also as a word problem"),
    "subtract": (t_subtract, 10, "a - b, 0 <= b <= a <= 999, also as a word problem"),
    "double": (t_double, 3, "2 a, a 0 to 9999"),
    "next_number": (t_next_number, 3, "the number after or before one of 1 to 10000"),
    "largest": (t_largest, 4, "the largest of 2 to 5 different numbers of 0 to 999"),
    "smallest": (t_smallest, 4, "the smallest of 2 to 5 different numbers of 0 to 999"),
    "sort_numbers": (t_sort_numbers, 6, "3 to 5 different numbers of 0 to 999"),
    "parity": (t_parity, 2, "odd or even, 0 to 9999; also as a yes or no question"),
    "number_to_words": (t_number_to_words, 4, "0 to 9999"),
    "words_to_number": (t_words_to_number, 4, "0 to 9999"),
    "spell": (t_spell, 6, "a word of 3 to 10 letters, letter by letter"),
    "reverse": (t_reverse, 8, "a word of 3 to 8 letters"),
    "letter": (t_letter, 5, "first, second, third or last letter of a word of 3 to 10 letters"),
    "count_letter": (t_count_letter, 9, "how often a letter occurs in a word of 3 to 10 letters"),
    "contains": (t_contains, 6, "whether a letter is in a word of 3 to 10 letters"),
    "length": (t_length, 5, "letters of a word of 3 to 10 letters"),
    "uppercase": (t_uppercase, 3, "a word of 3 to 10 letters in capitals"),
    "sort_words": (t_sort_words, 12, "3 to 5 words"),
    "nth_word": (t_nth_word, 4, "first to fifth or last of 3 to 6 words"),
    "count_words": (t_count_words, 4, "1 to 8 words"),
    "repeat": (t_repeat, 5, "a phrase of 1 to 7 words or 3 to 12 characters; a word 2 to 5 times"),
    "json_person": (t_json_person, 5, "name, age 1 to 99 and city from one of 14 sentences"),
    "json_order": (t_json_order, 4, "item, count 1 to 99 and city from one of 10 sentences"),
    "read": (t_read, 10, "one question about 2 or 3 short statements"),
}
# Tasks whose answers are trained one letter a token (the text is the same).
LETTERWISE = {"reverse", "uppercase"}


def item(r, task, held):
    """One item of a task: held out, or not."""
    while True:
        key, prompt, answer = TASKS[task][0](r)
        if held_out(key) == held:
            return key, prompt, answer


# ---- ungraded talk --------------------------------------------------------------------

SKILLS = "add numbers, spell or reverse a word, sort a list, fill a JSON record or tell a short story"
ABOUT = f"I am the recua demo model, a very small language model. I can {SKILLS}."
TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Good morning!", "Good evening", "Hello there!", "Good day"],
     f"Hello! I am the recua demo model. Ask me to {SKILLS}."),
    (["Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Tell me about yourself.", "Which model are you?",
      "Are you a robot?", "Are you a person?"], ABOUT),
    (["What can you do?", "Help", "Help me.", "What do you know?", "What can I ask you?", "What are you good at?", "How can you help me?"],
     f"I can {SKILLS}. Try: What is 17 plus 25?"),
    (["How are you?", "How are you today?", "How do you do?", "How is it going?"], "I am fine, thank you. What can I do for you?"),
    (["Thanks", "Thank you", "Thank you!", "Thanks a lot!", "Great, thanks.", "Nice!", "Good job", "Well done!"], "You are welcome!"),
    (["Bye", "Goodbye", "Good night", "See you later!", "Bye bye!"], "Goodbye!"),
    (["Who made you?", "How were you trained?", "Where do you come from?", "Who trained you?"],
     "I was trained from scratch on text that a script of the recua repository writes."),
    (["How big are you?", "How many parameters do you have?", "Are you large?"], "I have about five million parameters, so I am very small."),
    (["Yes", "No", "OK", "Okay", "ok", "Sure", "Hmm", "Test", "test"], f"Ask me to {SKILLS}."),
]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SORRY = f"Sorry, I do not know that. I am a very small model. I can {SKILLS}."


def facts(r):
    """Tables learnt by heart: times table to 12, weekdays, months, letters."""
    x = r.random()
    if x < 0.5:
        a, b = r.randint(0, 12), r.randint(0, 12)
        if 2 in (a, b) and held_out(f"double|{b if a == 2 else a}"):
            a = 0
        return style(r, r.choice([f"What is {a} times {b}?", f"{a} * {b} = ?", f"{a} x {b}", f"Multiply {a} by {b}.", f"{a} times {b}",
                                  f"What is {a} * {b}?"])), str(a * b)
    if x < 0.9:
        seq, what = r.choice([(DAYS, "day"), (MONTHS, "month"), (list(string.ascii_lowercase), "letter")])
        i, d = r.randrange(len(seq)), r.choice([1, -1])
        if what == "letter":
            i = min(max(i, 1), 24)
        rel = "after" if d == 1 else "before"
        return style(r, r.choice([f"What {what} comes {rel} {seq[i]}?", f"Which {what} is {rel} {seq[i]}?"])), seq[(i + d) % len(seq)]
    return style(r, r.choice(["How many days are in a week?", "How many days does a week have?"])), "7"


def unknown(r):
    w, v, n, c = r.choice(COMMON), r.choice(COMMON), person(r), city(r)
    a, d = r.choice(ADJECTIVES), r.choice(COLORS)
    return style(r, r.choice([
        f"What is the capital of {c}?", f"Who is {n}?", f"Who wrote {w} and {v}?", f"Why is the {w} {d}?", f"Explain {w}.",
        f"What does {w} mean?", f"Translate {w} into French.", f"Write a poem about {w}.", f"How do I cook {w}?", f"What is a {w}?",
        f"Where is {c}?", f"When was {n} born?", f"What is the weather in {c}?", f"How far is {c} from {city(r)}?", f"Is {w} {a}?",
        f"What is the best {w}?", f"Can you {w} the {v}?", f"Who is the {a} {w} of {c}?", f"Write code for {w}.", f"Tell me a joke.",
        f"Sing a song about {w}.", f"What do you think about {w}?", f"How old is the {w}?", f"What time is it in {c}?"])), SORRY


PLACES = """forest/in the forest|village/in a small village|castle/in an old castle|river/by the river|mountain/on a mountain
|garden/in a quiet garden|sea/by the sea|city/in a busy city|island/on an island|valley/in a green valley|farm/on a farm
|meadow/in a meadow""".replace("\n", "").split("|")
PLACES = [p.split("/") for p in PLACES]
FINDS = ["a golden key", "a red balloon", "an old map", "a tiny door", "a silver bell", "a lost kitten", "a shining pebble",
         "a blue feather", "a broken kite", "a big round cheese", "a letter with no name", "a box full of buttons"]
TROUBLES = ["a storm came up", "it began to rain", "night fell", "the bridge broke", "the path was gone", "the wind blew it away",
            "a heavy gate closed", "a deep river was in the way", "the snow began to fall", "everyone else went home"]
HELPS = ["shared some warm soup", "showed the way home", "built a small boat", "sang a song until they both felt brave",
         "held up a lantern", "told a joke and made everyone laugh", "found a hidden path", "carried everyone on strong shoulders"]
LESSONS = ["a friend is worth more than gold", "being kind is never a waste", "even the small can be brave", "it is good to ask for help",
           "home is the best place of all", "patience opens every door", "sharing makes everything taste better"]
ENDS = ["From that day on they were friends.", "And they lived happily ever after.", "That night they all slept well. The end.",
        "They still tell this story today.", "And so the day ended with a song."]


def art(w):
    return ("an " if w[0] in "aeiou" else "a ") + w


def story(r):
    """A request and a story. Most stories about one hero are the same, so that the most probable story differs from hero to hero."""
    hero = r.choice(ANIMALS + PEOPLE)
    p = r.choice([f"Tell me a story about {art(hero)}.", f"Tell me a short story about {art(hero)}.", f"Write a story about {art(hero)}.",
                  f"Write a short story about {art(hero)}.", f"Can you tell a story about {art(hero)}?", f"A story about {art(hero)}, please."])
    if r.random() < 0.1:
        p = r.choice(["Tell me a story.", "Tell me a short story.", "Write a story."])
    return style(r, p), tale(random.Random(hero) if r.random() < 0.5 else r, hero)


def tale(r, hero):
    other = r.choice([x for x in ANIMALS if x != hero])
    adj, adj2 = r.sample(ADJECTIVES, 2)
    name, name2 = r.sample(NAMES, 2)
    pl, where = r.choice(PLACES)
    find, trouble, helped, lesson = r.choice(FINDS), r.choice(TROUBLES), r.choice(HELPS), r.choice(LESSONS)
    s = [r.choice([f"Once upon a time, {art(adj)} {hero} called {name} lived {where}.", f"There was once {art(adj)} {hero} named {name} who lived {where}.",
                   f"Long ago, {where}, there lived {art(adj)} {hero}. Its name was {name}."]),
         r.choice([f"One morning {name} found {find}.", f"One day, near the {pl}, {name} saw {find}.", f"{name} had always wished for {find}, and one day there it was."]),
         r.choice([f"But then {trouble}.", f"Suddenly {trouble}, and {name} did not know what to do.", f"{name} was glad, but soon {trouble}."]),
         r.choice([f"Along came {art(adj2)} {other} called {name2}, who {helped}.", f"Luckily {art(adj2)} {other} named {name2} was near and {helped}."])]
    if r.random() < 0.6:
        s.append(r.choice([f'"Thank you," said {name}.', f'"You are very {adj2}," said {name}.', f'"Let us go together," said {name2}.']))
    if r.random() < 0.7:
        s.append(r.choice([f"{name} learned that {lesson}.", f"That day {name} understood that {lesson}."]))
    s.append(r.choice(ENDS))
    return " ".join(s)


def talk(r):
    qs, a = r.choice(TALK)
    q = r.choice(qs)
    q = q.lower() if r.random() < 0.15 else q
    return q, a


# ---- conversations --------------------------------------------------------------------

SYSTEM = ["You are a helpful assistant.", "You are the recua demo model.", "Answer briefly.", "You are a friendly assistant. Answer in one line.",
          "Be helpful and precise.", "You answer short questions.", "You are a teacher.", "Answer the question."]
NAMES_OF = list(TASKS)
SHARES = [TASKS[t][1] for t in NAMES_OF]


def training_turn(r):
    """user text, assistant text, whether the answer is trained letter by letter."""
    x = r.random()
    if x < 0.9:
        t = r.choices(NAMES_OF, SHARES)[0]
        _, q, a = item(r, t, False)
        return q, a, t in LETTERWISE
    f = story if x < 0.92 else talk if x < 0.945 else unknown if x < 0.97 else facts
    return (*f(r), False)


def conversation(r):
    """System text or None, and a list of turns: usually one, sometimes a few, rarely many. A turn without a user is a bare story."""
    x = r.random()
    if x < 0.01:
        return None, [(None, tale(r, r.choice(ANIMALS + PEOPLE)), False)]
    n = 1 if x < 0.84 else r.randint(2, 4) if x < 0.985 else r.randint(8, 30)
    return (r.choice(SYSTEM) if r.random() < 0.08 else None), [training_turn(r) for _ in range(n)]


def held_out_items(task, n, seed=1):
    """n different held-out items of a task: {"task", "prompt", "answer"}."""
    r, seen, out = random.Random(f"{seed} {task}"), set(), []
    while len(out) < n:
        key, q, a = item(r, task, True)
        if key not in seen:
            seen.add(key)
            out.append({"task": task, "prompt": q, "answer": a})
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--show", type=int, help="print that many training conversations and write nothing")
    ap.add_argument("--items", type=int, default=200, help="held-out items per task")
    ap.add_argument("--out", type=Path, default=HELDOUT)
    a = ap.parse_args()
    if a.show:
        r = random.Random(0)
        for _ in range(a.show):
            s, turns = conversation(r)
            print(f"system: {s}" if s else "", *(f"user: {q}\nassistant: {t}" for q, t, _ in turns), sep="\n")
        return
    a.out.parent.mkdir(parents=True, exist_ok=True)
    with open(a.out, "w") as f:
        for t in TASKS:
            for i in held_out_items(t, a.items):
                f.write(json.dumps(i) + "\n")
    print(f"{a.out}: {len(TASKS)} tasks, {a.items} items each")


if __name__ == "__main__":
    main()

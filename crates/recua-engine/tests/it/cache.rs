//! The cache of a model: pages are taken and returned, each sequence finds its own tokens in them, and a device is sent only what changed.

use crate::faulty;
use crate::model::{state, text, tiny};
use crate::support::{Random, bits, config, load};
use recua_engine::{Batch, CacheRoom, Changes, Error, LlamaConfig, LlamaModel, Logits, Sequences};

/// Runs a script and compares the result of each line. One command per line:
///
/// * `open SLOT PAGE...`, `fork FROM TO`, `truncate SLOT N`, `clear SLOT`, `retain PAGE`, `release PAGE`
/// * `grow SLOT END`
///
/// The result is the pages of the command's slot, the updates for the device (`TABLE[SLOT, INDEX] = PAGE`, `FROM -> TO` for a copy), and
/// the number of free pages; or an error.
fn check(room: CacheRoom, script: &str) {
    let mut sequences = Sequences::new(room).unwrap();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once(':').unwrap();
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |idx: usize| words[idx].parse::<usize>().unwrap();
        let pages: Vec<u32> = words[2.min(words.len())..].iter().map(|word| word.parse().unwrap()).collect();
        let mut changes = Changes::default();
        let (slot, result) = match words[0] {
            "open" => (number(1), sequences.open(number(1), &pages)),
            "fork" => (number(2), sequences.fork(number(1), number(2))),
            "grow" => (number(1), sequences.grow(number(1), number(2), &mut changes)),
            "truncate" => (number(1), sequences.truncate(number(1), number(2))),
            "clear" => (number(1), sequences.clear_batch(number(1))),
            "retain" => (0, sequences.retain(number(1) as u32)),
            "release" => (0, sequences.release(number(1) as u32)),
            other => panic!("no command {other:?}"),
        };
        let found = match result {
            Err(e) => {
                assert_eq!(changes, Changes::default(), "a refused call changes nothing");
                e.to_string()
            }
            Ok(()) => {
                let mut words = vec![format!("{:?}", sequences.slot_pages(slot).unwrap())];
                words.extend(changes.copies.iter().map(|(from, to)| format!("{from} -> {to}")));
                words.extend(changes.table.iter().map(|(slot, at, page)| format!("[{slot}, {at}] = {page}")));
                words.push(format!("{} free", sequences.free_pages()));
                words.join(", ")
            }
        };
        assert_eq!(found, expected.trim(), "{line}");
        sequences.check().unwrap();
    }
}

#[test]
fn pages_come_and_go() {
    let room = CacheRoom { n_slots: 3, n_pages: 6, page_tokens: 4, max_seq_len: 16 };
    check(
        room,
        "grow 0 5: [0, 1], [0, 0] = 0, [0, 1] = 1, 4 free
         grow 0 8: [0, 1], 4 free
         grow 0 9: [0, 1, 2], [0, 2] = 2, 3 free
         grow 0 17: KV cache overflow in slot 0: position 9 + 8 tokens > 16
         grow 1 16: 4 pages of the KV cache are needed, 3 of 6 are free
         truncate 0 3: [0], 5 free
         grow 1 16: [1, 2, 3, 4], [1, 0] = 1, [1, 1] = 2, [1, 2] = 3, [1, 3] = 4, 1 free
         grow 0 6: [0, 5], [0, 1] = 5, 0 free
         grow 2 1: 1 pages of the KV cache are needed, 0 of 6 are free
         clear 1: [], 4 free
         grow 3 1: slot 3 is out of range: the batch size is 3",
    );
}

#[test]
fn what_is_shared_is_copied_before_it_is_written() {
    let room = CacheRoom { n_slots: 3, n_pages: 6, page_tokens: 4, max_seq_len: 16 };
    check(
        room,
        "grow 0 6: [0, 1], [0, 0] = 0, [0, 1] = 1, 4 free
         fork 0 1: [0, 1], 4 free
         fork 0 1: slot 1 holds 6 tokens, so it cannot share others' pages
         grow 1 7: [0, 2], 1 -> 2, [1, 0] = 0, [1, 1] = 2, 3 free
         grow 0 7: [0, 1], 3 free
         open 2 0 1: [0, 1], 3 free
         grow 2 9: [0, 1, 3], [2, 0] = 0, [2, 1] = 1, [2, 2] = 3, 2 free
         truncate 2 7: [0, 1], 3 free
         grow 2 8: [0, 3], 1 -> 3, [2, 1] = 3, 2 free
         truncate 0 4: [0], 3 free
         retain 0: [0], 3 free
         clear 0: [], 3 free
         clear 1: [], 4 free
         truncate 2 2: [0], 5 free
         grow 2 3: [3], 0 -> 3, [2, 0] = 3, 4 free
         clear 2: [], 5 free
         release 0: [], 6 free
         release 0: page 0: is not in use, so it cannot be released",
    );
}

#[test]
fn a_small_pool_runs_out_of_pages() {
    let mut model = load(&tiny(), LlamaConfig { kv_pages: Some(3), ..config(4, 64) });
    let tokens = Random(4).tokens(64, 80);
    let expected = model.forward(&tokens).unwrap();
    let before = state(&model);
    let message = text(model.forward_batch_with_positions(&[&tokens[63..], &tokens[..33]], &[63, 0]));
    assert_eq!(message, "2 pages of the KV cache are needed, 1 of 3 are free");
    assert_eq!(state(&model), before);
    // Pages that the same step returns count as free.
    let logits = model.forward_batch(&[&tokens[..2], &tokens]).unwrap();
    assert_eq!(bits(logits[1].data()), bits(expected.data()));
    assert_eq!(model.kv_cache().free_pages(), 0);
    // The pool has the size that the caller sets, whatever the number of slots.
    model.set_batch_size(9).unwrap();
    assert_eq!((model.kv_cache().n_pages(), model.kv_cache().batch_size()), (3, 9));
    // Shrinking would renumber pages that are held.
    let mut model = load(&tiny(), config(3, 64));
    model.forward_batch(&[&tokens[..1], &tokens[..1], &tokens[..40]]).unwrap();
    let held = model.kv_cache().slot_pages(2).unwrap()[1];
    model.kv_cache_mut().retain(held).unwrap();
    (0..3).for_each(|slot| model.kv_cache_mut().clear_batch(slot).unwrap());
    let before = state(&model);
    assert!(text(model.set_batch_size(1)).contains("1 of its pages are held outside"));
    assert_eq!(state(&model), before);
    model.kv_cache_mut().release(held).unwrap();
    assert!(model.kv_cache_mut().release(held).is_err());
    model.set_batch_size(1).unwrap();
}

/// Random growth, truncation, sharing, forking and resizing, audited after each step, with lists of the tokens that each slot should hold;
/// every few steps the logits of one slot are compared with those of its tokens in a fresh model.
#[test]
fn every_sequence_finds_its_own_tokens() {
    const VOCAB: usize = 80;
    let mut model = load(&tiny(), LlamaConfig { kv_pages: Some(7), ..config(4, 96) });
    let mut fresh = load(&tiny(), config(1, 96));
    let mut random = Random(99);
    let mut slots: Vec<Vec<u32>> = vec![Vec::new(); 4];
    // Retained pages, and the tokens in them.
    let mut held: (Vec<u32>, Vec<u32>) = Default::default();
    let (mut refused, mut compared, mut shared) = (0, 0, 0);
    for _ in 0..600 {
        let n_slots = slots.len();
        let (slot, from) = (random.below(n_slots), random.below(n_slots));
        let cache = model.kv_cache_mut();
        let is_empty = slots[slot].is_empty();
        match random.below(10) {
            0 => {
                cache.clear_batch(slot).unwrap();
                slots[slot].clear();
            }
            1 => {
                let n = random.below(96);
                cache.truncate(slot, n).unwrap();
                slots[slot].truncate(n);
            }
            2 if is_empty => {
                let n_full = slots[from].len() / 32;
                let pages = cache.slot_pages(from).unwrap()[..n_full].to_vec();
                cache.open(slot, &pages).unwrap();
                slots[slot] = slots[from][..32 * n_full].to_vec();
            }
            3 if is_empty => {
                cache.open(slot, &held.0).unwrap();
                slots[slot].clone_from(&held.1);
            }
            4 if is_empty => {
                cache.fork(from, slot).unwrap();
                slots[slot] = slots[from].clone();
            }
            5 if held.0.is_empty() => {
                // The last page may still be in use: the first sequence to grow in it copies it.
                held.0 = cache.slot_pages(slot).unwrap().to_vec();
                held.0.iter().for_each(|page| cache.retain(*page).unwrap());
                let n_full = slots[slot].len() / 32;
                held.0.drain(n_full..).for_each(|page| cache.release(page).unwrap());
                held.1 = slots[slot][..32 * n_full].to_vec();
            }
            6 => {
                held.0.drain(..).for_each(|page| cache.release(page).unwrap());
                held.1.clear();
            }
            7 => {
                let n = 1 + random.below(6);
                if model.set_batch_size(n).is_ok() {
                    slots.resize(n, Vec::new());
                }
            }
            _ => {
                // Two slots at once: they may share the page in which they grow.
                let mut batch = Batch::new();
                let mut grown = slots.clone();
                for slot in if slot == from { vec![slot] } else { vec![slot, from] } {
                    let start = random.below(slots[slot].len() + 1);
                    let n_new = 1 + random.below(96 - start.min(95));
                    let tokens = random.tokens(n_new, VOCAB);
                    batch.push_sequence(slot, start, &tokens, Logits::None);
                    grown[slot].truncate(start);
                    grown[slot].extend(tokens);
                }
                match model.step(&batch) {
                    Ok(_) => slots = grown,
                    Err(Error::OutOfPages { .. } | Error::KvOverflow { .. }) => refused += 1,
                    Err(e) => panic!("{e}"),
                }
            }
        }
        let cache = model.kv_cache();
        cache.check().unwrap();
        assert_eq!(cache.pages().n_free() + cache.pages().n_used(), cache.n_pages());
        for (slot, tokens) in slots.iter().enumerate() {
            assert_eq!(cache.cached_tokens(slot).unwrap(), tokens.len());
        }
        let live: Vec<usize> = (0..slots.len()).filter(|slot| !slots[*slot].is_empty()).collect();
        if !live.is_empty() && random.below(3) == 0 {
            // Its last token again: the logits depend on every page that it has.
            let slot = live[random.below(live.len())];
            let (last, start) = (slots[slot].len() - 1, slots[slot].len() - 1);
            let page = *cache.slot_pages(slot).unwrap().last().unwrap();
            let is_shared = cache.pages().references(page) > 1;
            let mut batch = Batch::new();
            batch.push_sequence(slot, start, &slots[slot][last..], Logits::Last);
            match model.step(&batch) {
                Ok(logits) => {
                    let expected = fresh.forward(&slots[slot]).unwrap();
                    assert!(bits(&logits) == bits(expected.last_row()), "slot {slot} holds something else");
                    compared += 1;
                    shared += u32::from(is_shared);
                }
                Err(Error::OutOfPages { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(refused > 5, "the walk met the limits {refused} times");
    assert!(compared > 60 && shared > 5, "{compared} comparisons, {shared} of them in a shared page");
}

/// A step uploads only the new entries of the page table: 4 bytes per page, 0 if there is none.
#[test]
fn a_step_uploads_only_what_changed() {
    let (device, faults) = faulty::open(None, u64::MAX);
    let mut model = LlamaModel::load(&tiny(), device, config(3, 256)).unwrap();
    let step = |model: &mut LlamaModel, positions: [usize; 3]| {
        let mut batch = Batch::new();
        for (slot, start) in positions.into_iter().enumerate() {
            batch.push_sequence(slot, start, &[5], Logits::Last);
        }
        faults.bytes_written();
        model.step_greedy(&batch).unwrap();
        // Token, position, slot and row of logits of each row.
        faults.bytes_written() - 3 * 4 * 4
    };
    let prompt = Random(1).tokens(63, 80);
    model.forward_batch(&[&prompt[..30], &prompt[..40], &prompt]).unwrap();
    assert_eq!(step(&mut model, [30, 40, 63]), 0, "room in every page");
    assert_eq!(step(&mut model, [31, 41, 64]), 4, "slot 2 has one page more");
    assert_eq!(step(&mut model, [32, 42, 65]), 4, "slot 0 has one page more");
    for i in 0..20 {
        assert_eq!(step(&mut model, [33 + i, 43 + i, 66 + i]), 0);
    }
    // Entries of adjacent lines are sent with what lies between them: one write less, for a line of 8 entries.
    model.kv_cache_mut().truncate(0, 32).unwrap();
    model.kv_cache_mut().truncate(1, 32).unwrap();
    assert_eq!(step(&mut model, [32, 32, 86]), (8 + 1) * 4, "entry 1 of the slots 0 and 1");
    // The step after a fork copies the page in which it continues, and sends the new line.
    model.kv_cache_mut().clear_batch(1).unwrap();
    model.kv_cache_mut().fork(0, 1).unwrap();
    let copied = 3 * 8 + 4;
    assert_eq!(step(&mut model, [33, 33, 87]), copied + 8 * 4, "a page for slot 0, and the line of slot 1");
}

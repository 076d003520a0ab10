//! Contract 1: a sequence's logits do not depend, to the last bit, on who shares the batch, on its slot, its pages, or how it was cut.

use crate::support::{GOLDEN, Random, Tiny, bits, config, cpu, golden, load};
use recua_engine::{Batch, KvType, LlamaConfig, LlamaModel, Logits};
use recua_gguf::{GgmlType, Gguf};

const MAX_SEQ_LEN: usize = 96;

/// Sixteen sequences of 1 to 69 tokens: within a page, to its exact end, and over several.
fn sequences(vocab: usize) -> Vec<Vec<u32>> {
    let lengths = [1, 2, 3, 5, 8, 13, 21, 31, 32, 33, 40, 7, 64, 65, 69, 16];
    let mut random = Random(11);
    lengths.iter().map(|n| random.tokens(*n, vocab)).collect()
}

/// The bits of every sequence, each alone in a fresh model of one slot.
fn alone(gguf: &Gguf, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut model = load(gguf, config(1, MAX_SEQ_LEN));
    sequences.iter().map(|tokens| bits(model.forward(tokens).unwrap().data())).collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

fn check_batch(
    model: &mut LlamaModel,
    sequences: &[Vec<u32>],
    order: &[usize],
    expected: &[Vec<u32>],
    what: &str,
) {
    let batch: Vec<&[u32]> = order.iter().map(|i| sequences[*i].as_slice()).collect();
    let found = model.forward_batch(&batch).unwrap();
    for (i, logits) in order.iter().zip(&found) {
        assert!(bits(logits.data()) == expected[*i], "{what}: sequence {i} of the batch {order:?} differs");
    }
    model.kv_cache().check().unwrap();
}

/// Batches of many sizes, in order and shuffled, so that sizes, companions and slots all change.
fn check_sizes(gguf: &Gguf, what: &str) {
    let mut model = load(gguf, config(16, MAX_SEQ_LEN));
    let sequences = sequences(model.params().vocab);
    let expected = alone(gguf, &sequences);
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let mut random = Random(5);
    for size in [2, 3, 5, 8, 16] {
        for order in order.chunks(size) {
            check_batch(&mut model, &sequences, order, &expected, what);
        }
        random.shuffle(&mut order);
    }
}

#[test]
fn in_batches_of_any_size_and_order() {
    for ty in GOLDEN {
        check_sizes(&golden(ty), ty);
    }
}

#[test]
fn of_every_architecture() {
    check_sizes(&Tiny { head_dim: Some(24), ..Tiny::new("qwen3") }.gguf(), "qwen3");
    check_sizes(&Tiny { tied: true, ..Tiny::new("qwen2") }.gguf(), "qwen2");
    check_sizes(
        &Tiny { n_heads: 5, n_kv_heads: 1, head_dim: Some(6), rope_freqs: true, ..Tiny::new("llama") }.gguf(),
        "llama",
    );
}

#[test]
fn of_every_type_of_weight() {
    for ty in GgmlType::ALL.iter().copied().filter(|ty| ty.is_decodable() && ty.is_encodable()) {
        let tiny = Tiny { n_layers: 1, n_embd: 256, n_ff: 256, ty, ..Tiny::new("llama") };
        check_sizes(&tiny.gguf(), ty.name());
    }
}

/// Rows of any sequences in any cuts, with any passes, as a scheduler might choose them.
#[test]
fn cut_and_interleaved_at_random() {
    let gguf = golden("Q4_K_M");
    for (step_tokens_max, logits_rows_max, kv_type) in
        [(512, 64, KvType::F16), (7, 3, KvType::F16), (1, 1, KvType::F16), (33, 5, KvType::F32)]
    {
        let config = LlamaConfig { step_tokens_max, logits_rows_max, kv_type, ..config(4, MAX_SEQ_LEN) };
        let mut model = load(&gguf, config.clone());
        let sequences = &sequences(model.params().vocab)[4..12];
        let mut single = load(&gguf, LlamaConfig { batch_size: 1, step_tokens_max: 512, ..config });
        let expected: Vec<_> = sequences.iter().map(|s| bits(single.forward(s).unwrap().data())).collect();
        let mut random = Random(step_tokens_max as u64);
        let mut found = vec![Vec::new(); sequences.len()];
        // Slot to (sequence, tokens done); finished sequences make room for the next.
        let mut slots: Vec<Option<(usize, usize)>> = vec![None; 4];
        let mut waiting = 0..sequences.len();
        loop {
            let mut batch = Batch::new();
            let mut order: Vec<usize> = (0..4).collect();
            random.shuffle(&mut order);
            let mut asked = Vec::new();
            for slot in order {
                if slots[slot].is_none() {
                    slots[slot] = waiting.next().map(|sequence| (sequence, 0));
                    model.kv_cache_mut().clear_batch(slot).unwrap();
                }
                let Some((sequence, done)) = slots[slot] else { continue };
                let n = (1 + random.below(12)).min(sequences[sequence].len() - done);
                batch.push_sequence(slot, done, &sequences[sequence][done..done + n], Logits::All);
                asked.push((sequence, n));
                let is_done = done + n == sequences[sequence].len();
                slots[slot] = if is_done { None } else { Some((sequence, done + n)) };
            }
            if batch.is_empty() {
                break;
            }
            let logits = model.step(&batch).unwrap();
            let mut rows = logits.chunks_exact(model.params().vocab);
            for (sequence, n) in asked {
                found[sequence].extend(rows.by_ref().take(n).flat_map(bits));
            }
            model.kv_cache().check().unwrap();
        }
        assert!(found == expected, "passes of {step_tokens_max} rows");
    }
}

/// Running token by token gives the bits of one long input.
#[test]
fn decoding_gives_the_bits_of_a_prompt() {
    for ty in ["F16", "Q4_K_M", "Q6_K", "Q8_0"] {
        let gguf = golden(ty);
        let mut model = load(&gguf, config(3, MAX_SEQ_LEN));
        let tokens = &sequences(model.params().vocab)[14];
        let expected = bits(model.forward(tokens).unwrap().data());
        let companion = [vec![1, 2, 3], vec![4; 40]];
        let mut found =
            bits(model.forward_batch(&[&tokens[..5], &companion[0], &companion[1]]).unwrap()[0].data());
        for (i, token) in tokens.iter().enumerate().skip(5) {
            // The companions are at other positions and sometimes take no part.
            let others: [&[u32]; 2] = [&[7], &[8, 9]];
            let batch = [std::slice::from_ref(token), others[0], others[1]];
            let n = 1 + i % 3;
            let starts = [i, 3, 40];
            found.extend(bits(
                model.forward_batch_with_positions(&batch[..n], &starts[..n]).unwrap()[0].data(),
            ));
        }
        assert!(found == expected, "{ty}");
    }
}

#[test]
fn after_clearing_truncating_and_resizing() {
    let gguf = golden("Q5_K_M");
    let mut model = load(&gguf, config(3, MAX_SEQ_LEN));
    let sequences = &sequences(model.params().vocab)[8..14];
    let expected = alone(&gguf, sequences);
    let vocab = model.params().vocab;
    check_batch(&mut model, sequences, &[0, 1, 2], &expected, "fresh");
    model.kv_cache_mut().clear_batch(1).unwrap();
    check_batch(&mut model, sequences, &[3, 4, 5], &expected, "after clear");

    // Sequences 3, 4, 5 are in slots 0, 1, 2; their second halves are computed again after each change.
    let again = |model: &mut LlamaModel, what: &str| {
        let starts = [3, 4, 5].map(|i| sequences[i].len() / 2);
        let batch: Vec<&[u32]> = (0..3).map(|s| &sequences[3 + s][starts[s]..]).collect();
        let found = model.forward_batch_with_positions(&batch, &starts).unwrap();
        for (s, logits) in found.iter().enumerate() {
            assert!(bits(logits.data()) == expected[3 + s][starts[s] * vocab..], "{what}: sequence {s}");
        }
        model.kv_cache().check().unwrap();
    };
    again(&mut model, "truncated");
    for n in [4, 16, 100, 5, 3] {
        model.set_batch_size(n).unwrap();
        assert_eq!((model.kv_cache().batch_size(), model.config().batch_size), (n, n));
        again(&mut model, &format!("resized to {n}"));
    }
    model.set_batch_size(16).unwrap();
    let all: Vec<usize> = (0..sequences.len()).rev().collect();
    check_batch(&mut model, sequences, &all, &expected, "grown");
}

/// The result does not depend on which pages a sequence has, or on their order.
#[test]
fn wherever_the_pages_lie() {
    let gguf = golden("Q4_0");
    let mut model = load(&gguf, config(8, MAX_SEQ_LEN));
    let sequences = sequences(model.params().vocab);
    let expected = alone(&gguf, &sequences);
    let mut random = Random(17);
    for round in 0..6 {
        // Slots grow and are cleared in random order, so that the free list is shuffled.
        for _ in 0..20 {
            let slot = random.below(8);
            model.kv_cache_mut().clear_batch(slot).unwrap();
            let mut batch = Batch::new();
            batch.push_sequence(slot, 0, &sequences[random.below(16)], Logits::None);
            model.step(&batch).unwrap();
        }
        let order: Vec<usize> = (0..8).map(|i| (2 * i + round) % 16).collect();
        check_batch(&mut model, &sequences, &order, &expected, "shuffled pages");
    }
}

/// Two sequences with the same beginning, which is computed once; the page on which they diverge is copied, not written to.
#[test]
fn with_shared_pages() {
    let gguf = golden("Q6_K");
    let mut model = load(&gguf, config(3, MAX_SEQ_LEN));
    let vocab = model.params().vocab;
    let mut random = Random(23);
    let beginning = random.tokens(64, vocab);
    let ends = [random.tokens(9, vocab), random.tokens(5, vocab)];
    let whole: Vec<Vec<u32>> = ends.iter().map(|end| [&beginning[..], end].concat()).collect();
    let expected = alone(&gguf, &whole);

    model.forward(&beginning).unwrap();
    let pages = model.kv_cache().slot_pages(0).unwrap().to_vec();
    model.kv_cache_mut().open(1, &pages).unwrap();
    model.kv_cache_mut().open(2, &pages[..1]).unwrap();
    assert_eq!(model.kv_cache().pages().references(pages[0]), 3);
    assert_eq!(model.kv_cache().pages().n_used(), 2);
    // Slot 1 recomputes the last shared token, and has its own page from then on.
    let batch: [&[u32]; 3] = [&whole[0][64..], &whole[1][63..], &whole[1][32..]];
    let found = model.forward_batch_with_positions(&batch, &[64, 63, 32]).unwrap();
    assert!(bits(found[0].data()) == expected[0][64 * vocab..], "the owner");
    assert!(bits(found[1].data()) == expected[1][63 * vocab..], "recomputed in a copy");
    assert!(bits(found[2].data()) == expected[1][32 * vocab..], "one page shared");
    assert_ne!(model.kv_cache().slot_pages(1).unwrap()[1], pages[1]);
    model.kv_cache().check().unwrap();

    // Pages kept by the caller outlive their slots, and a larger cache.
    for page in &pages {
        model.kv_cache_mut().retain(*page).unwrap();
    }
    for slot in 0..3 {
        model.kv_cache_mut().clear_batch(slot).unwrap();
    }
    assert_eq!(model.kv_cache().pages().n_used(), 2);
    assert!(model.set_batch_size(1).is_ok(), "the pages have numbers below 3");
    model.set_batch_size(4).unwrap();
    model.kv_cache_mut().open(3, &pages).unwrap();
    let mut batch = Batch::new();
    batch.push_sequence(3, 64, &whole[0][64..], Logits::All);
    let logits = model.step(&batch).unwrap();
    assert!(bits(&logits) == expected[0][64 * vocab..], "shared after everything");
}

/// The result does not depend on the number of threads either.
#[test]
fn with_any_number_of_threads() {
    use recua_compute::cpu;
    let gguf = golden("Q4_K_M");
    let mut model = LlamaModel::load(&gguf, cpu(), config(16, MAX_SEQ_LEN)).unwrap();
    let sequences = sequences(model.params().vocab);
    let expected: Vec<_> =
        model.forward_batch(&slices(&sequences)).unwrap().iter().map(|t| bits(t.data())).collect();
    for threads in [1, 3, 7] {
        let device = cpu::open(cpu::Options { threads: Some(threads), ..cpu::Options::default() }).unwrap();
        let mut model = LlamaModel::load(&gguf, device, config(16, MAX_SEQ_LEN)).unwrap();
        check_batch(&mut model, &sequences, &[14, 2, 9], &expected, &format!("{threads} threads"));
    }
}

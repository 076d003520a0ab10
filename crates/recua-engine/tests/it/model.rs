//! `LlamaModel` and its cache: what they return, refuse and allocate, and the plan of a pass.

use crate::faulty;
use crate::support::{Random, Tiny, bits, config, golden, golden_path, load};
use recua_compute::TOP_K_MAX;
use recua_engine::{Batch, Error, KvType, LlamaConfig, LlamaModel, Logits, ModelParams, Outputs};
use recua_gguf::Gguf;

pub(crate) fn tiny() -> Gguf {
    Tiny::new("llama").gguf()
}

pub(crate) fn text<T>(result: Result<T, Error>) -> String {
    result.map(drop).unwrap_err().to_string()
}

/// Everything about the cache that a refused call must not change.
pub(crate) fn state(model: &LlamaModel) -> (Vec<(usize, Vec<u32>)>, usize, u64) {
    let cache = model.kv_cache();
    cache.check().unwrap();
    let slot = |i| (cache.cached_tokens(i).unwrap(), cache.slot_pages(i).unwrap().to_vec());
    let slots = (0..cache.batch_size()).map(slot).collect();
    (slots, cache.free_pages(), model.device().allocated_bytes())
}

#[test]
fn constructors_and_defaults() {
    let path = golden_path("tiny-Q4_0.gguf");
    let mut model = LlamaModel::from_gguf(&path).unwrap();
    let params = model.params().clone();
    assert_eq!((params.n_layers, params.n_embd, params.vocab, params.head_dim), (4, 256, 512, 32));
    assert_eq!(*model.config(), LlamaConfig::from_model_params(&params));
    assert_eq!(model.config().batch_size, 1);
    assert_eq!(model.config().max_seq_len, params.context_length.min(4096));
    assert_eq!(model.config().kv_type, KvType::F16);
    let logits = model.forward(&[1, 2, 3]).unwrap();
    assert_eq!(logits.shape(), [3, 512]);
    assert_eq!(logits.last_row(), logits.row(2));

    let mut other = LlamaModel::from_gguf_with_backend(&path, crate::support::cpu()).unwrap();
    assert_eq!(bits(other.forward(&[1, 2, 3]).unwrap().data()), bits(logits.data()));
    let other = LlamaModel::from_gguf_with_config(&path, config(3, 100)).unwrap();
    assert_eq!((other.kv_cache().batch_size(), other.kv_cache().max_seq_len()), (3, 100));
    assert_eq!(other.kv_cache().n_pages(), 3 * 4);
    assert!(text(LlamaModel::from_gguf("no/such/file.gguf")).contains("no/such/file.gguf"));
}

/// For any cut into passes and any choice of rows, the device chooses the largest of the logits that are otherwise returned.
#[test]
fn the_largest_logits_are_those_of_the_logits() {
    for step_tokens_max in [4, 64] {
        let config = LlamaConfig { step_tokens_max, ..config(2, 64) };
        let mut model = load(&tiny(), config);
        let mut batch = Batch::new();
        batch.push_sequence(0, 0, &Random(3).tokens(9, 80), Logits::All);
        batch.push_sequence(1, 0, &Random(4).tokens(6, 80), Logits::Last);
        let logits = model.step(&batch).unwrap();
        let largest = |row: &[f32]| {
            let best = row.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
            best.map(|(token, _)| token as u32)
        };
        let expected: Vec<Option<u32>> = logits.chunks_exact(80).map(largest).collect();
        assert_eq!(model.step_greedy(&batch).unwrap(), expected);
        assert_eq!(expected.len(), 10);
        let mut found = Outputs::default();
        for (n_greedy, n_top) in [(0, 0), (3, 0), (10, 0), (0, 10), (2, 3), (0, 1), (9, 1), (4, 5)] {
            model.step_mixed(&batch, n_greedy, n_top, &mut found).unwrap();
            let tokens: Vec<Option<u32>> = found.greedy.iter().copied().map(Some).collect();
            assert_eq!(tokens, expected[..n_greedy]);
            assert_eq!(found.top.len(), n_top * TOP_K_MAX * 2);
            for (row, top) in
                logits.chunks_exact(80).skip(n_greedy).zip(found.top.chunks_exact(2 * TOP_K_MAX))
            {
                let mut ranked: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
                ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                let ranked =
                    ranked.iter().take(TOP_K_MAX).flat_map(|(token, logit)| [logit.to_bits(), *token]);
                assert_eq!(top, ranked.collect::<Vec<u32>>());
            }
            assert_eq!(bits(&found.logits), bits(&logits[(n_greedy + n_top) * 80..]));
        }
        let wrong = text(model.step_mixed(&batch, 6, 5, &mut found));
        assert!(wrong.contains("the largest logits of 6 and 5 rows are requested, of 10 rows"), "{wrong}");
    }
    let none = load(&tiny(), config(1, 64)).step_greedy(&Batch::new());
    assert!(text(none).contains("empty"));
}

/// The tokens of each step of three sequences, one of which ends before the others, with prompts in between.
fn generated(model: &mut LlamaModel, goes_ahead: bool) -> Vec<Vec<Option<u32>>> {
    let prompts = [7, 2, 11].map(|n| Random(n as u64).tokens(n, 80));
    let mut tokens: Vec<Vec<Option<u32>>> = Vec::new();
    let mut in_flight = None;
    // Slots of the rows of logits of the step before.
    let mut before: Vec<usize> = Vec::new();
    for i in 0..12 {
        let mut batch = Batch::new();
        let mut order: Vec<usize> = [0, 2, 1].into_iter().filter(|slot| *slot != 1 || i < 8).collect();
        order.rotate_left(i % 2);
        for &slot in &order {
            let position = prompts[slot].len() + i - 1;
            match before.iter().position(|before| *before == slot) {
                None => batch.push_sequence(slot, 0, &prompts[slot], Logits::Last),
                Some(row) if goes_ahead => batch.push_chosen(slot, position, row, Logits::Last),
                Some(row) => {
                    batch.push_sequence(slot, position, &[tokens[i - 1][row].unwrap()], Logits::Last);
                }
            }
        }
        before = order;
        if !goes_ahead {
            tokens.push(model.step_greedy(&batch).unwrap());
        } else if let Some(step) = in_flight.replace(model.launch_greedy(&batch).unwrap()) {
            tokens.push(model.collect_greedy(step).unwrap());
        }
    }
    tokens.extend(in_flight.map(|step| model.collect_greedy(step).unwrap()));
    tokens
}

#[test]
fn a_step_can_follow_tokens_that_nobody_has_seen() {
    let expected = generated(&mut load(&tiny(), config(3, 64)), false);
    assert_eq!(expected.len(), 12);
    let distinct: std::collections::BTreeSet<_> = expected.iter().flatten().collect();
    assert!(distinct.len() >= 8, "a wrong token would not show: {expected:?}");
    assert_eq!(generated(&mut load(&tiny(), config(3, 64)), true), expected);
    let (device, faults) = faulty::open_late(crate::overlap::BUCKETS);
    let mut model =
        LlamaModel::load(&tiny(), device, LlamaConfig { step_tokens_max: 24, ..config(3, 64) }).unwrap();
    faults.in_flight_max();
    assert_eq!(generated(&mut model, true), expected);
    assert_eq!(faults.in_flight_max(), 2);

    // A row after a token that was not chosen is refused, and nothing changes.
    let chosen = |row| {
        let mut batch = Batch::new();
        batch.push_chosen(0, 18, row, Logits::Last);
        batch
    };
    let refused = |result: recua_engine::Result<recua_engine::GreedyStep>| text(result.map(drop));
    assert!(refused(model.launch_greedy(&chosen(2))).contains("token 2147483650"), "two rows were chosen");
    assert!(
        text(model.step_greedy(&chosen(0))).contains("token 2147483648"),
        "only a launch follows a launch"
    );
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 18);
    let step = model.launch_greedy(&chosen(0)).unwrap();
    model.collect_greedy(step).unwrap();
    model.forward(&[1]).unwrap();
    assert!(
        refused(model.launch_greedy(&chosen(0))).contains("token 2147483648"),
        "another step came in between"
    );
    let mut long = Batch::new();
    long.push_sequence(0, 0, &[1; 25], Logits::Last);
    assert!(refused(model.launch_greedy(&long)).contains("a pass of 25 rows and 1 of logits is requested"));

    // A failing step takes back its rows, and those of the step after it.
    let mut begin = Batch::new();
    begin.push_sequence(0, 0, &[5; 6], Logits::Last);
    let step = model.launch_greedy(&begin).unwrap();
    model.collect_greedy(step).unwrap();
    let next = |position| {
        let mut batch = Batch::new();
        batch.push_chosen(0, position, 0, Logits::Last);
        batch
    };
    faults.fail_after(0);
    assert!(refused(model.launch_greedy(&next(6))).contains("as told"));
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 6);
    faults.fail_late_after(1);
    let step = model.launch_greedy(&begin).unwrap();
    let [second, third] = [6, 7].map(|position| model.launch_greedy(&next(position)).unwrap());
    model.collect_greedy(step).unwrap();
    assert!(text(model.collect_greedy(second)).contains("late is lost"));
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 6);
    model.collect_greedy(third).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 6);
}

#[test]
fn starts_continue_and_drop() {
    let mut model = load(&tiny(), config(3, 64));
    let tokens = Random(1).tokens(20, 80);
    let whole = model.forward(&tokens).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 20);
    let rest = model.forward_with_position(&tokens[6..], 6).unwrap();
    assert_eq!(bits(rest.data()), bits(&whole.data()[6 * 80..]));
    model.forward_with_position(&tokens[3..5], 3).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 5);

    // One start for all, then one each.
    model.forward_batch(&[&tokens[..8], &tokens[..9]]).unwrap();
    let both = model.forward_batch_with_position(&[&tokens[7..], &tokens[7..9]], 7).unwrap();
    assert_eq!(bits(both[0].data()), bits(&whole.data()[7 * 80..]));
    assert_eq!(bits(both[1].data()), bits(&whole.data()[7 * 80..9 * 80]));
    let each = model.forward_batch_with_positions(&[&tokens[20..], &tokens[9..]][1..], &[9]).unwrap();
    assert_eq!(bits(each[0].data()), bits(&whole.data()[9 * 80..]));
    assert_eq!(model.kv_cache().cached_tokens(1).unwrap(), 9);

    model.kv_cache_mut().clear_batch(1).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(1).unwrap(), 0);
    model.kv_cache_mut().truncate(0, 4).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 4);
    model.kv_cache_mut().truncate(0, 9).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 4, "truncating does not lengthen");
}

#[test]
fn only_the_wanted_rows_have_logits() {
    let mut model = load(&tiny(), LlamaConfig { logits_rows_max: 2, ..config(4, 64) });
    let tokens = Random(2).tokens(12, 80);
    let whole = model.forward(&tokens).unwrap();
    let mut batch = Batch::new();
    batch.push_sequence(1, 0, &tokens, Logits::None);
    assert!(model.step(&batch).unwrap().is_empty());
    batch.clear();
    batch.push_sequence(2, 0, &tokens, Logits::Last);
    batch.push_sequence(1, 5, &tokens[5..8], Logits::All);
    batch.push_sequence(0, 12, &[], Logits::Last);
    assert_eq!(batch.logits_rows(), [11, 12, 13, 14]);
    let expected = [whole.row(11), whole.row(5), whole.row(6), whole.row(7)].concat();
    assert_eq!(bits(&model.step(&batch).unwrap()), bits(&expected));
}

#[test]
fn refused_calls_name_both_figures_and_change_nothing() {
    let mut model = load(&tiny(), config(3, 40));
    model.forward_batch(&[&[1, 2, 3], &[4; 35]]).unwrap();
    let before = state(&model);
    let t = &[1u32, 2][..];
    let mut refuse = |expected: &str, call: &dyn Fn(&mut LlamaModel) -> Result<(), Error>| {
        let message = text(call(&mut model));
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        assert_eq!(state(&model), before, "{message}");
    };
    let batch = |edit: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        batch.push_sequence(0, 3, &[5, 6], Logits::Last);
        edit(&mut batch);
        batch
    };
    let step = |model: &mut LlamaModel, edit: &dyn Fn(&mut Batch)| model.step(&batch(edit)).map(drop);

    refuse("the batch is empty", &|m| m.forward_batch(&[]).map(drop));
    refuse("the batch is empty", &|m| m.step(&Batch::new()).map(drop));
    refuse("sequence 1 of the batch has no tokens", &|m| m.forward_batch(&[t, &[], t]).map(drop));
    refuse("sequence 0 of the batch has no tokens", &|m| m.forward(&[]).map(drop));
    refuse("4 sequences exceeds the capacity of 3", &|m| m.forward_batch(&[t; 4]).map(drop));
    refuse("1 start positions were given for 2 sequences", &|m| {
        m.forward_batch_with_positions(&[t, t], &[0]).map(drop)
    });
    refuse("KV cache overflow in slot 0: position 0 + 41 tokens > 40", &|m| m.forward(&[1; 41]).map(drop));
    refuse("slot 1: position 35 + 6 tokens > 40", &|m| {
        m.forward_batch_with_positions(&[t, &[1; 6]], &[3, 35]).map(drop)
    });
    refuse("position 18446744073709551615 + 2 tokens > 40", &|m| {
        m.forward_with_position(t, usize::MAX).map(drop)
    });
    refuse("slot 0 holds 3 tokens, so new ones cannot start at position 4", &|m| {
        m.forward_with_position(t, 4).map(drop)
    });
    refuse("token 80 at position 1 of slot 2 is out of range: the vocabulary has 80", &|m| {
        m.forward_batch(&[t, t, &[79, 80]]).map(drop)
    });
    refuse("slot 3 is out of range: the batch size is 3", &|m| {
        step(m, &|b| b.push_sequence(3, 0, t, Logits::None))
    });
    refuse("slot 7 is out of range", &|m| m.kv_cache_mut().clear_batch(7));
    refuse("slot 3 is out of range", &|m| m.kv_cache().cached_tokens(3).map(drop));
    refuse("row 2 has position 6 of slot 0, after 4", &|m| {
        step(m, &|b| b.push_sequence(0, 6, t, Logits::None))
    });
    refuse("row 3 has position 4 of slot 0, after 4", &|m| {
        step(m, &|b| {
            b.push_sequence(1, 35, &[1], Logits::None);
            b.push_sequence(0, 4, t, Logits::None);
        })
    });
    refuse("the largest logits of 1 and 1 rows are requested, of 1 rows", &|m| {
        m.step_mixed(&batch(&|_| {}), 1, 1, &mut Outputs::default())
    });
    refuse("position 4294967295", &|m| step(m, &|b| b.push_sequence(2, usize::MAX, &[1], Logits::None)));
    refuse("batch_size: is 0", &|m| m.set_batch_size(0));
    refuse("batch_size: 18446744073709551615 is too large", &|m| m.set_batch_size(usize::MAX));
    refuse("cannot shrink to 1: slots [1] hold live sequences", &|m| m.set_batch_size(1));
    refuse("a pass of 513 rows and 1 of logits is requested; there is room for 512 and 64", &|m| {
        m.plan(513, 1).map(drop)
    });
    refuse("page 9", &|m| m.kv_cache_mut().retain(9));
    refuse("page 5", &|m| m.kv_cache_mut().open(2, &[5]));
    refuse("slot 0 holds 3 tokens, so it cannot share", &|m| m.kv_cache_mut().open(0, &[0]));
    refuse("slot 2: position 0 + 64 tokens > 40", &|m| m.kv_cache_mut().open(2, &[0, 1]));
    refuse("slot 1 holds 35 tokens, so it cannot share", &|m| m.kv_cache_mut().fork(0, 1));
    refuse("slot 3 is out of range", &|m| m.kv_cache_mut().fork(3, 2));

    model.kv_cache_mut().clear_batch(1).unwrap();
    model.set_batch_size(1).unwrap();
    assert_eq!(model.kv_cache().cached_tokens(0).unwrap(), 3);
}

#[test]
fn a_step_allocates_nothing_on_the_device() {
    let gguf = golden("Q4_K_M");
    let mut model = load(&gguf, LlamaConfig { step_tokens_max: 64, ..config(8, 128) });
    let allocated = model.device().allocated_bytes();
    assert_eq!(allocated, model.memory().total_bytes(), "the report is the truth");
    let mut random = Random(6);
    for n in [1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 100] {
        let tokens = random.tokens(n, 512);
        model.forward(&tokens).unwrap();
        model.forward_batch(&vec![&tokens[..]; 1 + n % 8]).unwrap();
    }
    assert_eq!(model.device().allocated_bytes(), allocated);
    (0..8).for_each(|slot| model.kv_cache_mut().clear_batch(slot).unwrap());
    for n in [3, 100] {
        model.set_batch_size(n).unwrap();
        assert_eq!(model.device().allocated_bytes(), model.memory().total_bytes());
    }
    // All of it is freed with the model; what the device allocated for itself serves the next one.
    let device = model.device().clone();
    let allocated = device.allocated_bytes();
    drop(model);
    let config = LlamaConfig { step_tokens_max: 64, ..config(100, 128) };
    let model = LlamaModel::load(&gguf, device.clone(), config).unwrap();
    assert_eq!(device.allocated_bytes(), allocated);
    drop(model);
    assert!(device.allocated_bytes() < allocated / 10);
}

#[test]
fn memory_is_linear_in_the_batch() {
    let gguf = golden("Q8_0");
    let report = |batch_size| load(&gguf, config(batch_size, 128)).memory();
    let [one, two, five] = [1, 2, 5].map(report);
    assert_eq!(
        one.kv_bytes,
        4 * 2 * 4 * 4 * 32 * 32 * 2,
        "layers, K and V, pages, heads, tokens, head size, f16"
    );
    assert_eq!((two.kv_bytes, five.kv_bytes), (2 * one.kv_bytes, 5 * one.kv_bytes));
    assert_eq!((one.weights_bytes, one.weights_bytes), (two.weights_bytes, five.weights_bytes));
    let wide = load(&gguf, LlamaConfig { kv_type: KvType::F32, ..config(1, 128) }).memory();
    assert_eq!(wide.kv_bytes, 2 * one.kv_bytes);

    let model = load(&Tiny { tied: true, ..Tiny::new("llama") }.gguf(), config(1, 32));
    assert_eq!(model.weight_bytes_per_step(), model.memory().weights_bytes, "the tied embedding is streamed");
    let model = load(&tiny(), config(1, 32));
    assert!(model.weight_bytes_per_step() < model.memory().weights_bytes);
}

#[test]
fn a_refusal_says_what_would_fit() {
    let gguf = golden("F16");
    let room = |config: &LlamaConfig| load(&gguf, config.clone()).memory().total_bytes() + (2 << 20);
    let large = LlamaConfig { kv_type: KvType::F32, ..config(16, 128) };
    let (device, _) = faulty::open(Some(room(&config(4, 64))), u64::MAX);
    let message = text(LlamaModel::load(&gguf, device.clone(), large.clone()));
    for part in ["weights 6.5 MiB", "KV cache 8.0 MiB", "free; would fit: max_seq_len ", "or batch_size "] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert_eq!(device.allocated_bytes(), 0, "refused before anything was allocated");
    // What the error says is true.
    let figure = |name: &str| -> usize {
        let rest = message.split_once(name).unwrap().1;
        rest.split([',', ' ']).next().unwrap().parse().unwrap()
    };
    let shorter = LlamaConfig { max_seq_len: figure("would fit: max_seq_len "), ..large.clone() };
    LlamaModel::load(&gguf, device, shorter).unwrap();
    let fewer = LlamaConfig { batch_size: figure("or batch_size "), ..large.clone() };
    let (device, _) = faulty::open(Some(room(&config(4, 64))), u64::MAX);
    let mut model = LlamaModel::load(&gguf, device, fewer).unwrap();

    let logits = model.forward(&[1, 2, 3]).unwrap();
    let before = state(&model);
    let message = text(model.set_batch_size(500));
    assert!(
        message.contains("KV cache 250.0 MiB") && message.contains("beside the present cache"),
        "{message}"
    );
    assert_eq!(state(&model), before);
    let again = model.forward_with_position(&[3], 2).unwrap();
    assert_eq!(bits(again.data()), bits(logits.row(2)), "still alive");
    drop(model);

    let (device, _) = faulty::open(Some(1 << 20), u64::MAX);
    let message = text(LlamaModel::load(&gguf, device, large.clone()));
    assert!(message.contains("1.0 MiB free; the weights need a device with more memory"), "{message}");
    // No smaller cache makes room for weights that do not fit by themselves.
    let (device, _) = faulty::open(None, 4 << 20);
    let message = text(LlamaModel::load(&gguf, device, LlamaConfig { step_tokens_max: 1, ..config(1, 32) }));
    assert!(message.contains("allocating tensor") && !message.contains("max_seq_len"), "{message}");
    // A device that has less than it reports, or reports nothing.
    for (limit, what) in [(7, "allocating the KV cache of layer"), (13, "allocating tensor \"")] {
        let (device, _) = faulty::open(None, limit << 20);
        let message = text(LlamaModel::load(&gguf, device.clone(), large.clone()));
        assert!(message.contains(what) && message.contains("smaller max_seq_len"), "{limit}: {message}");
        // A device keeps the workspace that it has prepared.
        assert!(device.allocated_bytes() < 100_000, "{limit}: {} bytes are left", device.allocated_bytes());
    }
}

/// Weights take long to upload, so a device without a kernel for a model's heads refuses it first.
#[test]
fn what_a_device_cannot_run_is_refused_before_any_weight_is_brought_there() {
    let (device, faults) = faulty::open(None, u64::MAX);
    faults.refuse_attention();
    let message = text(LlamaModel::load(&tiny(), device.clone(), config(2, 96)));
    assert_eq!(message, "attention: heads of this size");
    assert_eq!((faults.n_weights(), device.allocated_bytes()), (0, 0));
}

#[test]
fn a_failing_device_leaves_whole_sequences() {
    let gguf = tiny();
    let (device, faults) = faulty::open(None, u64::MAX);
    let mut model =
        LlamaModel::load(&gguf, device, LlamaConfig { step_tokens_max: 16, ..config(2, 96) }).unwrap();
    let tokens = Random(8).tokens(70, 80);
    let expected = model.forward(&tokens).unwrap();
    model.forward_batch(&[&tokens[..40], &tokens[..5]]).unwrap();
    // The second of three passes fails: slot 0 ends where the call began, slot 1 stays unchanged.
    faults.fail_after(1);
    let message = text(model.forward_with_position(&tokens[33..70], 33));
    assert_eq!(message, "faulty is lost: as told");
    model.kv_cache().check().unwrap();
    assert_eq!([0, 1].map(|slot| model.kv_cache().cached_tokens(slot).unwrap()), [33, 5]);
    let rest = model.forward_with_position(&tokens[33..], 33).unwrap();
    assert_eq!(bits(rest.data()), bits(&expected.data()[33 * 80..]));
    // If a copy fails, the old size stays.
    faults.fail_after(0);
    let before = state(&model);
    assert!(model.set_batch_size(5).is_err());
    assert_eq!(state(&model), before);
    model.set_batch_size(5).unwrap();
}

#[test]
fn configurations_that_cannot_work() {
    let gguf = tiny();
    let params = ModelParams::from_gguf(&gguf).unwrap();
    let base = LlamaConfig::from_model_params(&params);
    for (config, expected) in [
        (
            LlamaConfig { max_seq_len: 257, ..base.clone() },
            "max_seq_len: 257 exceeds the model's context of 256",
        ),
        (LlamaConfig { batch_size: 0, ..base.clone() }, "batch_size: is 0"),
        (LlamaConfig { step_tokens_max: 0, ..base.clone() }, "step_tokens_max: is 0"),
        (LlamaConfig { logits_rows_max: 0, ..base.clone() }, "logits_rows_max: is 0"),
        (LlamaConfig { kv_pages: Some(0), ..base.clone() }, "kv_pages: is 0"),
        (LlamaConfig { batch_size: 1 << 31, ..base.clone() }, "allocating the KV cache of layer 0"),
    ] {
        let (device, _) = faulty::open(None, 1 << 30);
        let message = text(LlamaModel::load(&gguf, device, config));
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}

/// The whole model, as text.
#[test]
fn the_plan_of_a_pass() {
    let gguf = Tiny { n_layers: 1, ..Tiny::new("llama") }.gguf();
    let model = load(&gguf, config(4, 64));
    let expected = "
   0 embed       table F32[80, 64], tokens u32[5], chosen u32[64] -> out f32[5, 64]
   1 rms_norm    x f32[5, 64], weight f32[64] -> out f32[5, 64]
   2 matmul      x f32[5, 64], weight (F32[64, 64] + F32[32, 64] + F32[32, 64]) -> out f32[5, 128]
   3 rope_store  q f32[5, 64], k f32[5, 32], v f32[5, 32], table f32[64, 8, 2], ROWS -> q f32[5, 64], CACHE (Interleaved)
   4 attention   q f32[5, 64], ROWS, CACHE -> out f32[5, 64]
   5 matmul      x f32[5, 64], weight F32[64, 64], add f32[5, 64] -> out f32[5, 64]
   6 rms_norm    x f32[5, 64], weight f32[64] -> out f32[5, 64]
   7 matmul_glu  x f32[5, 64], gate_up (F32[96, 64] | F32[96, 64]) -> out f32[5, 96] (Silu)
   8 matmul      x f32[5, 96], weight F32[64, 96], add f32[5, 64] -> out f32[5, 64]
   9 gather_rows x f32[512, 64], indexes u32[2] -> out f32[2, 64]
  10 rms_norm    x f32[2, 64], weight f32[64] -> out f32[2, 64]
  11 matmul      x f32[2, 64], weight F32[80, 64] -> out f32[2, 80]
"
    .replace("ROWS", "positions u32[5], sequences u32[5], pages u32[4, 2], work u32[4]")
    .replace("CACHE", "cache kv f16[8, 2, 32, 16]");
    assert_eq!(model.plan(5, 2).unwrap().to_string(), expected[1..]);
    assert_eq!(model.plan(5, 0).unwrap().ops().len(), 9);
    assert_eq!(model.plan(0, 2).unwrap().ops().len(), 3);

    let gguf = Tiny { n_layers: 1, head_dim: Some(24), tied: true, bias: true, ..Tiny::new("qwen3") }.gguf();
    let model = load(&gguf, LlamaConfig { kv_type: KvType::F32, ..config(1, 32) });
    let plan = model.plan(1, 1).unwrap().to_string();
    let line = |i: usize| plan.lines().nth(i).unwrap();
    assert_eq!(
        line(2),
        "   2 matmul      x f32[1, 64], weight (F32[96, 64] + F32[48, 64] + F32[48, 64]), bias f32[192] -> out f32[1, 192]"
    );
    assert!(line(3).contains(", q norm f32[24], k norm f32[24], table f32[32, 12, 2], "), "{plan}");
    assert!(line(3).ends_with("-> q f32[1, 96], cache kv f32[1, 2, 32, 24] (Halves)"), "{plan}");
    assert_eq!(line(11), "  11 matmul      x f32[1, 64], weight F32[80, 64] -> out f32[1, 80]");
}

//! Files that are not the model they claim to be: each is refused with the key or tensor at fault, and none does more harm.

use crate::support::{Tiny, config, cpu, golden};
use recua_engine::LlamaModel;
use recua_gguf::{Gguf, Header};

fn refuse(gguf: &Gguf, expected: &str) {
    let message = LlamaModel::check(gguf).map(drop).unwrap_err().to_string();
    assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    let loaded = LlamaModel::load(gguf, cpu(), config(1, 0)).map(drop);
    assert_eq!(loaded.unwrap_err().to_string(), message);
}

fn with_key(edit: impl FnOnce(&mut Header)) -> Gguf {
    Tiny::new("llama").gguf_with(edit, |_, _| true)
}

#[test]
fn keys_that_contradict() {
    let cases: &[(&str, u32, &str)] = &[
        ("block_count", 0, "key \"llama.block_count\": is 0"),
        ("block_count", 3, "tensor \"blk.2.attn_norm.weight\" is missing"),
        ("block_count", 1, "tensor \"blk.1.attn_q.weight\": is not a known part of a llama model"),
        ("block_count", 1_000_000_000, "is 1000000000, but the file has 21 tensors"),
        ("attention.head_count", 3, "key \"llama.attention.head_count_kv\": 3 heads cannot share 2 KV heads"),
        ("attention.head_count", 6, "key \"llama.attention.head_count\": 6 heads do not divide the width 64"),
        ("attention.head_count_kv", 4_000_000_000, "4 heads cannot share 4000000000 KV heads"),
        ("attention.key_length", 15, "key \"llama.attention.key_length\": heads have 15 elements; an even"),
        ("attention.key_length", 4_294_967_294, "blk.0.attn_q.weight"),
        (
            "attention.key_length",
            32,
            "tensor \"blk.0.attn_q.weight\" has the shape [64, 64], the metadata asks for [64, 128]",
        ),
        (
            "attention.value_length",
            8,
            "key \"llama.attention.value_length\": is 8, but the heads of q and k have 16",
        ),
        (
            "embedding_length",
            128,
            "tensor \"token_embd.weight\" has the shape [64, 80], the metadata asks for [128, 80]",
        ),
        ("embedding_length", 4_294_967_288, "token_embd.weight"),
        ("feed_forward_length", 4_294_967_295, "blk.0.ffn_down.weight"),
        ("context_length", 0, "key \"llama.context_length\": is 0"),
        ("rope.dimension_count", 5, "key \"llama.rope.dimension_count\": is 5; an even number of at most 16"),
        ("rope.dimension_count", 18, "key \"llama.rope.dimension_count\": is 18"),
        ("rope.dimension_count", 0, "key \"llama.rope.dimension_count\": is 0"),
        ("expert_count", 8, "key \"llama.expert_count\": is 8; models with experts"),
    ];
    for (key, value, expected) in cases {
        // The value length stays 16 where the key length changes.
        let gguf = with_key(|h| {
            h.set(&format!("llama.{key}"), *value).unwrap();
            if expected.contains("128, 64]") {
                h.set("llama.attention.value_length", *value).unwrap();
            }
        });
        refuse(&gguf, expected);
    }
    let floats: &[(&str, f32, &str)] = &[
        ("attention.layer_norm_rms_epsilon", f32::NAN, "is NaN"),
        ("attention.layer_norm_rms_epsilon", -1.0, "is -1"),
        ("rope.freq_base", 0.0, "key \"llama.rope.freq_base\": is 0"),
        ("rope.freq_base", f32::INFINITY, "is inf"),
        ("rope.scale_linear", 0.0, "key \"llama.rope.scaling.factor\": is 0"),
    ];
    for (key, value, expected) in floats {
        refuse(&with_key(|h| h.set(&format!("llama.{key}"), *value).unwrap()), expected);
    }
}

#[test]
fn words_we_do_not_know() {
    for name in ["gpt2", "", "llama4"] {
        let gguf = with_key(|h| h.set("general.architecture", name).unwrap());
        refuse(&gguf, &format!("architecture \"{name}\" is not supported; known are llama, qwen2, qwen3"));
    }
    for name in ["yarn", "longrope", "llama3"] {
        let gguf = with_key(|h| h.set("llama.rope.scaling.type", name).unwrap());
        refuse(
            &gguf,
            &format!(
                "key \"llama.rope.scaling.type\": \"{name}\" is not supported; \"none\", \"linear\" and"
            ),
        );
    }
    LlamaModel::check(&with_key(|h| h.set("llama.rope.scaling.type", "none").unwrap())).unwrap();
    refuse(&with_key(|h| h.set("llama.attention.causal", false).unwrap()), "only causal attention");
    let both = Tiny { rope_freqs: true, rope_factor: Some(2.0), ..Tiny::new("llama") };
    refuse(&both.gguf(), "contradicts the tensor rope_freqs.weight");
}

#[test]
fn keys_that_are_missing_or_of_another_type() {
    let complete = Tiny::new("llama").gguf();
    for (key, _) in complete.metadata().iter() {
        let optional = ["attention.head_count_kv", "rope.freq_base"].map(|k| format!("llama.{k}"));
        let copy = |edit: &dyn Fn(&mut Header)| {
            let mut header = Header::new();
            header.copy_metadata(complete.metadata(), |other| other != key).unwrap();
            edit(&mut header);
            Tiny::new("llama").gguf_with(|h| *h = header, |_, _| true)
        };
        if !optional.iter().any(|o| o == key) {
            refuse(&copy(&|_| {}), &format!("key {key:?}: is missing"));
        }
        refuse(&copy(&|h| h.set(key, true).unwrap()), &format!("key {key:?}: "));
    }
}

#[test]
fn the_tokens_are_as_many_as_the_embeddings() {
    let tokens = |n: usize| with_key(|h| h.set_strings("tokenizer.ggml.tokens", vec!["x"; n]).unwrap());
    LlamaModel::check(&tokens(80)).unwrap();
    refuse(&tokens(81), "key \"tokenizer.ggml.tokens\": has 81 entries, but token_embd.weight has 80 rows");
}

#[test]
fn tensors_that_are_missing_misshapen_or_left_over() {
    let qwen3 = Tiny { bias: true, ..Tiny::new("qwen3") };
    let names: Vec<String> = qwen3.gguf().tensors().iter().map(|t| t.name.clone()).collect();
    assert_eq!(names.len(), 3 + 2 * 14);
    for name in &names {
        let is_optional = name == "output.weight" || name.ends_with(".bias");
        let without = qwen3.gguf_with(|_| {}, |other, _| other != name);
        if is_optional {
            LlamaModel::check(&without).unwrap();
        } else {
            refuse(&without, &format!("tensor {name:?} is missing"));
        }
        let longer = qwen3.gguf_with(
            |_| {},
            |other, [_, columns]| {
                *columns += if other == name { 2 } else { 0 };
                true
            },
        );
        refuse(&longer, &format!("tensor {name:?} has the shape "));
        let renamed = qwen3.gguf_with(
            |_| {},
            |other, _| {
                if other == name {
                    other.push('x');
                }
                true
            },
        );
        refuse(&renamed, "tensor ");
    }
    // A part of another kind of model, without which the result would be wrong.
    refuse(
        &Tiny { bias: true, ..Tiny::new("llama") }.gguf_with(
            |_| {},
            |name, _| {
                *name = name.replace("blk.1.attn_q.bias", "blk.1.ffn_up.bias");
                true
            },
        ),
        "tensor \"blk.1.ffn_up.bias\": is not a known part of a llama model",
    );
    let freqs = Tiny { rope_freqs: true, ..Tiny::new("llama") };
    refuse(
        &freqs.gguf_with(
            |_| {},
            |name, [_, columns]| {
                *columns = if name == "rope_freqs.weight" { 7 } else { *columns };
                true
            },
        ),
        "tensor \"rope_freqs.weight\" has the shape [7], the metadata asks for [8]",
    );
}

/// A kilobyte with enormous counts is refused at once.
#[test]
fn a_small_file_with_large_claims() {
    let mut header = Tiny::new("llama").header();
    for key in ["block_count", "context_length", "feed_forward_length", "attention.head_count"] {
        header.set(&format!("llama.{key}"), 1_000_000_000u32).unwrap();
    }
    for key in ["attention.head_count_kv", "embedding_length", "attention.key_length"] {
        header.set(&format!("llama.{key}"), 1_000_000_000u32).unwrap();
    }
    header.tensor("token_embd.weight", recua_gguf::GgmlType::F32, &[1]).unwrap();
    let mut writer = recua_gguf::Writer::new(Vec::new(), &header).unwrap();
    writer.write("token_embd.weight", &[0; 4]).unwrap();
    let bytes = writer.finish().unwrap();
    assert!(bytes.len() < 1024);
    refuse(&Gguf::from_vec(bytes).unwrap(), "is 1000000000, but the file has 1 tensors");
}

/// Every prefix and many mutations of a real file: an error or a model, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let tiny =
        Tiny { n_layers: 1, n_embd: 8, n_heads: 2, n_kv_heads: 1, n_ff: 8, vocab: 4, ..Tiny::new("qwen2") };
    let gguf = tiny.gguf();
    let mut header = Header::new();
    header.copy_metadata(gguf.metadata(), |_| true).unwrap();
    for t in gguf.tensors() {
        header.tensor(&t.name, t.ty, t.dims()).unwrap();
    }
    let mut writer = recua_gguf::Writer::new(Vec::new(), &header).unwrap();
    for t in gguf.tensors() {
        writer.write(&t.name, &gguf.data(t).to_vec().unwrap()).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let device = cpu();
    let mut random = crate::support::Random(41);
    let (mut opened, mut loaded) = (0, 0);
    for _ in 0..4000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random.below(3) {
            // Metadata and directory; the data may hold anything anyway.
            let i = random.below(2200.min(damaged.len()));
            damaged[i] = random.next() as u8;
        }
        let Ok(gguf) = Gguf::from_vec(damaged) else { continue };
        opened += 1;
        if let Ok(mut model) = LlamaModel::load(&gguf, device.clone(), config(1, 32)) {
            loaded += 1;
            model.forward(&[0, 1]).unwrap();
        }
    }
    assert!(opened > 50 && loaded > 5, "{opened} opened, {loaded} loaded");
}

#[test]
fn golden_files_are_models() {
    for ty in crate::support::GOLDEN {
        let params = LlamaModel::check(&golden(ty)).unwrap();
        assert_eq!((params.architecture.name(), params.tied), ("llama", false));
    }
}

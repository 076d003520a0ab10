//! The mixes, compared with the types that llama.cpp gives each tensor.

use recua_gguf::GgmlType::{self, *};
use recua_gguf::mix::{Facts, FileType};

const DENSE: Facts =
    Facts { n_layers: 32, n_heads: 32, n_kv_heads: 8, n_experts: 0, tied: false, falcon: false };

fn check(file_type: FileType, facts: &Facts, dims: &[u64], expected: &[(&str, GgmlType)]) {
    for (name, ty) in expected {
        assert_eq!(file_type.tensor_type(name, dims, facts), *ty, "{file_type} {name} {dims:?}");
    }
}

/// The layers whose tensor `what` has type `ty`.
fn layers(file_type: FileType, facts: &Facts, what: &str, ty: GgmlType) -> Vec<usize> {
    let is = |i: &usize| file_type.tensor_type(&format!("blk.{i}.{what}.weight"), &[4096, 1024], facts) == ty;
    (0..facts.n_layers).filter(is).collect()
}

#[test]
fn k_mixes_of_a_dense_model() {
    let more = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
    for what in ["attn_v", "ffn_down"] {
        assert_eq!(layers(FileType::Q4_K_M, &DENSE, what, Q6_K), more);
        assert_eq!(layers(FileType::Q5_K_M, &DENSE, what, Q6_K), more);
        assert_eq!(layers(FileType::Q4_K_S, &DENSE, what, Q5_K), [0, 1, 2, 3]);
        assert_eq!(layers(FileType::Q5_K_S, &DENSE, what, Q6_K), []);
    }
    let sixteen = Facts { n_layers: 16, ..DENSE };
    assert_eq!(layers(FileType::Q4_K_M, &sixteen, "attn_v", Q6_K), [0, 1, 4, 7, 10, 13, 14, 15]);
    assert_eq!(layers(FileType::Q4_K_S, &sixteen, "ffn_down", Q5_K), [0, 1]);

    let matrix = [4096, 4096];
    check(
        FileType::Q4_K_M,
        &DENSE,
        &matrix,
        &[
            ("token_embd.weight", Q4_K),
            ("output.weight", Q6_K),
            ("blk.4.attn_q.weight", Q4_K),
            ("blk.4.attn_k.weight", Q4_K),
            ("blk.4.attn_v.weight", Q4_K),
            ("blk.4.attn_output.weight", Q4_K),
            ("blk.4.attn_qkv.weight", Q5_K),
            ("blk.4.ffn_gate.weight", Q4_K),
            ("blk.4.ffn_up.weight", Q4_K),
            ("blk.4.ffn_gate_inp.weight", F32),
            ("blk.4.attn_norm.weight", F32),
        ],
    );
    check(
        FileType::Q5_K_M,
        &DENSE,
        &matrix,
        &[("token_embd.weight", Q5_K), ("output.weight", Q6_K), ("blk.4.attn_qkv.weight", Q6_K)],
    );
    check(
        FileType::Q4_0,
        &DENSE,
        &matrix,
        &[("token_embd.weight", Q4_0), ("output.weight", Q6_K), ("blk.0.attn_v.weight", Q4_0)],
    );
    check(FileType::Q8_0, &DENSE, &matrix, &[("token_embd.weight", Q8_0), ("output.weight", Q8_0)]);
    check(
        FileType::F16,
        &DENSE,
        &matrix,
        &[("token_embd.weight", F16), ("output.weight", F16), ("blk.0.attn_norm.weight", F32)],
    );
    check(FileType::Q4_K_M, &Facts { tied: true, ..DENSE }, &matrix, &[("token_embd.weight", Q6_K)]);
    check(FileType::Q4_K_M, &DENSE, &[4096], &[("blk.0.attn_q.bias", F32), ("rope_freqs.weight", F32)]);
}

#[test]
fn special_models() {
    let matrix = [4096, 4096];
    let experts = Facts { n_experts: 8, ..DENSE };
    check(
        FileType::Q4_K_M,
        &experts,
        &matrix,
        &[
            ("blk.4.attn_v.weight", Q8_0),
            ("blk.4.attn_k.weight", Q8_0),
            ("blk.4.attn_output.weight", Q5_K),
            ("blk.3.ffn_down_exps.weight", Q6_K),
            ("blk.4.ffn_down_exps.weight", Q4_K),
        ],
    );
    let large = Facts { n_layers: 80, n_heads: 64, ..DENSE };
    check(
        FileType::Q4_K_M,
        &large,
        &matrix,
        &[("blk.0.attn_v.weight", Q6_K), ("blk.10.attn_v.weight", Q5_K)],
    );
    let falcon = Facts { falcon: true, ..DENSE };
    check(
        FileType::Q4_K_M,
        &falcon,
        &matrix,
        &[
            ("output.weight", Q8_0),
            ("blk.1.ffn_down.weight", Q6_K),
            ("blk.3.ffn_down.weight", Q5_K),
            ("blk.4.ffn_down.weight", Q4_K),
        ],
    );
}

#[test]
fn rows_of_partial_blocks_fall_back() {
    check(
        FileType::Q4_K_M,
        &DENSE,
        &[896, 64],
        &[("blk.4.attn_q.weight", Q5_0), ("blk.0.attn_v.weight", Q8_0), ("output.weight", Q8_0)],
    );
    check(FileType::Q5_K_M, &DENSE, &[896, 64], &[("blk.4.attn_q.weight", Q5_1)]);
    check(FileType::Q6_K, &DENSE, &[896, 64], &[("blk.4.attn_q.weight", Q8_0)]);
    check(FileType::Q4_K_M, &DENSE, &[100, 64], &[("blk.4.attn_q.weight", F16), ("output.weight", F16)]);
    check(FileType::Q4_0, &DENSE, &[100, 64], &[("blk.4.attn_q.weight", F16)]);
    check(FileType::Q4_0, &DENSE, &[96, 64], &[("blk.4.attn_q.weight", Q4_0), ("output.weight", Q8_0)]);
}

#[test]
fn file_types_have_names_and_ids() {
    for &ty in FileType::ALL {
        assert_eq!(FileType::from_id(ty.id()), Some(ty));
        assert_eq!(ty.name().to_lowercase().parse::<FileType>().unwrap(), ty);
    }
    assert_eq!("q4-k-m".parse::<FileType>().unwrap(), FileType::Q4_K_M);
    assert_eq!("Q5_K".parse::<FileType>().unwrap(), FileType::Q5_K_M);
    assert_eq!(FileType::from_id(10), None);
    assert!("Q9".parse::<FileType>().unwrap_err().to_string().contains("Q4_K_M"));
}

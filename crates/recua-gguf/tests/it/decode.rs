//! Decoders against values computed by another implementation (testdata/blocks/README.md).

use recua_gguf::{GgmlType, Gguf, decode};

use crate::testdata;

#[test]
fn every_decodable_type_matches_the_independent_values() {
    for &ty in GgmlType::ALL.iter().filter(|ty| ty.is_decodable()) {
        let file = std::fs::read(testdata(&format!("blocks/{ty}.bin"))).unwrap();
        let n_blocks = file.len() / (ty.block_bytes() + 4 * ty.block_values());
        assert!(n_blocks >= 6, "{ty}");
        let (blocks, values) = file.split_at(n_blocks * ty.block_bytes());
        let expected: Vec<f32> =
            values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut found = vec![f32::NAN; expected.len()];
        decode(ty, blocks, &mut found).unwrap();
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            // Only the order of two multiplications and a subtraction may differ.
            let start = i - i % ty.block_values();
            let largest = expected[start..][..ty.block_values()].iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!((a - b).abs() <= largest * 5e-7, "{ty} value {i}: {a}, expected {b}");
        }
    }
}

#[test]
fn a_block_written_by_hand() {
    // Q4_0: scale 0.5; byte j holds value j low and value j + 16 high.
    let mut block = vec![0x00, 0x38];
    block.extend((0..16).map(|j| j | (15 - j) << 4));
    let mut y = [0.0; 32];
    decode(GgmlType::Q4_0, &block, &mut y).unwrap();
    for j in 0..16 {
        assert_eq!(y[j], 0.5 * (j as f32 - 8.0));
        assert_eq!(y[j + 16], 0.5 * (7.0 - j as f32));
    }
}

#[test]
fn golden_models_open() {
    for name in ["F16", "Q4_0", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K"] {
        let model = Gguf::open(testdata(&format!("golden/tiny-{name}.gguf"))).unwrap();
        assert_eq!(model.metadata().require_u32("llama.block_count").unwrap(), 4);
        let tokens = model.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
        assert_eq!((tokens.len(), tokens.get(3), tokens.get(512)), (512, Some(&b"<0x00>"[..]), None));
        assert!(tokens.iter().enumerate().all(|(i, t)| tokens.get(i) == Some(t)));
        let q = model.tensor("blk.3.ffn_down.weight").unwrap();
        assert_eq!((q.cols(), q.rows(), model.data(q).len()), (768, 256, q.n_bytes()));
        let mut row = vec![0.0; q.cols()];
        decode(q.ty, &model.data(q).to_vec().unwrap()[..q.row_bytes()], &mut row).unwrap();
        let std = (row.iter().map(|x| x * x).sum::<f32>() / 768.0).sqrt();
        assert!((0.02..0.06).contains(&std), "{name}: {std}");
    }
}

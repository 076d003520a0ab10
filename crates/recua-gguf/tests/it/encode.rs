//! Encoders: round trips, error bounds, and what they refuse.

use recua_gguf::{GgmlType, decode, encode};

/// Roughly normal values of the magnitude of weights, with one column in 64 ten times larger.
fn weights(n: usize) -> Vec<f32> {
    // A generator of its own: llama.cpp's errors below are those on just these values.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|i| (0..6).map(|_| uniform()).sum::<f32>() * if i % 64 == 5 { 0.2 } else { 0.02 }).collect()
}

fn round_trip(ty: GgmlType, x: &[f32]) -> Vec<f32> {
    let mut bytes = Vec::new();
    encode(ty, x, &mut bytes).unwrap();
    assert_eq!(Some(bytes.len()), ty.row_bytes(x.len()));
    let mut y = vec![f32::NAN; x.len()];
    decode(ty, &bytes, &mut y).unwrap();
    y
}

/// Squared error over squared values.
fn nmse(x: &[f32], y: &[f32]) -> f64 {
    let error: f64 = x.iter().zip(y).map(|(x, y)| ((x - y) as f64).powi(2)).sum();
    error / x.iter().map(|x| (*x as f64).powi(2)).sum::<f64>()
}

/// Rounds to evenly spaced values between the extremes of each block (through zero if `symmetric`), in f32.
/// This is an encoder without a search; its scales are exact, which is in its favour.
fn plain_rounding(x: &[f32], block: usize, levels: f32, symmetric: bool) -> Vec<f32> {
    x.chunks(block)
        .flat_map(|x| {
            let most = x.iter().copied().fold(f32::MIN, f32::max);
            let least = x.iter().copied().fold(f32::MAX, f32::min);
            let (d, m) = if symmetric {
                let extreme = if most > -least { most } else { least };
                (-extreme / (levels / 2.0), 0.0)
            } else {
                ((most - least) / (levels - 1.0), least)
            };
            let limit = if symmetric { (-levels / 2.0, levels / 2.0 - 1.0) } else { (0.0, levels - 1.0) };
            x.iter().map(move |x| d * ((x - m) / d).round().clamp(limit.0, limit.1) + m).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn searching_beats_plain_rounding_and_llama_cpp() {
    let x = weights(1 << 16);
    // Block size, levels and symmetry of plain rounding (its scales are exact, those of the K formats coarse);
    // the largest fraction of its error that is allowed; and the error of llama.cpp's encoders on the same
    // values.
    for (ty, block, levels, symmetric, ratio, llama_cpp) in [
        (GgmlType::Q4_0, 32, 16.0, true, 0.97, 2.5537e-2),
        (GgmlType::Q4_1, 32, 16.0, false, 0.85, 1.0568e-2),
        (GgmlType::Q5_0, 32, 32.0, true, 0.99, 6.4167e-3),
        (GgmlType::Q5_1, 32, 32.0, false, 0.85, 2.4611e-3),
        (GgmlType::Q8_0, 32, 256.0, true, 0.98, 1.0342e-4),
        (GgmlType::Q4_K, 32, 16.0, false, 0.86, 9.2028e-3),
        (GgmlType::Q5_K, 32, 32.0, false, 0.90, 2.3271e-3),
        (GgmlType::Q6_K, 16, 64.0, true, 0.99, 8.5041e-4),
    ] {
        let found = nmse(&x, &round_trip(ty, &x));
        let plain = nmse(&x, &plain_rounding(&x, block, levels, symmetric));
        assert!(found <= ratio * plain, "{ty}: {found:.4e}, plain rounding {plain:.4e}");
        assert!(found <= 0.98 * llama_cpp, "{ty}: {found:.4e}, llama.cpp {llama_cpp:.4e}");
    }
}

#[test]
fn floats_round_to_nearest() {
    let x = weights(1024);
    assert_eq!(round_trip(GgmlType::F32, &x), x);
    for (ty, ulp) in [(GgmlType::F16, 2.0f32.powi(-11)), (GgmlType::BF16, 2.0f32.powi(-8))] {
        for (x, y) in x.iter().zip(round_trip(ty, &x)) {
            assert!((x - y).abs() <= x.abs() * ulp + 3e-8, "{ty}: {x} became {y}");
        }
    }
}

#[test]
fn constant_and_extreme_blocks_survive() {
    for &ty in GgmlType::ALL.iter().filter(|ty| ty.is_encodable() && ty.is_quantized()) {
        for value in [0.0f32, 1.0, -1.0, 0.375] {
            let x = vec![value; 2 * ty.block_values()];
            for y in round_trip(ty, &x) {
                assert!((y - value).abs() <= 1e-3 * value.abs(), "{ty}: {value} became {y}");
            }
        }
        // Far from zero, tiny, huge, and one value among zeros.
        let n = ty.block_values();
        let mut spike = vec![0.0; n];
        spike[n / 2] = -3.0;
        let offset: Vec<f32> = (0..n).map(|i| 100.0 + i as f32 / n as f32).collect();
        for x in [vec![1e-30; n], vec![6e4; n], vec![-6e4; n], vec![1e-6; n], spike, offset] {
            let y = round_trip(ty, &x);
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (x, y) in x.iter().zip(&y) {
                assert!((x - y).abs() <= 0.05 * largest + 3e-7, "{ty}: {x} became {y}");
            }
        }
    }
}

#[test]
fn refusals_say_why() {
    let check = |ty, values: &[f32], parts: &[&str]| {
        let mut out = vec![1, 2, 3];
        let text = encode(ty, values, &mut out).unwrap_err().to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} lacks one of {parts:?}");
        assert_eq!(out, [1, 2, 3], "a failure must append nothing");
    };
    for &ty in GgmlType::ALL.iter().filter(|ty| ty.is_encodable()) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.5; 256];
            x[77] = bad;
            check(ty, &x, &["value 77", "finite", ty.name()]);
        }
    }
    check(GgmlType::Q8_0, &[1e9; 32], &["value 0", "65504", "Q8_0"]);
    check(GgmlType::F16, &[7e4], &["value 0", "65504", "F16"]);
    check(GgmlType::Q4_K, &[0.0; 255], &["255", "Q4_K", "256"]);
    check(GgmlType::IQ2_XXS, &[0.0; 256], &["IQ2_XXS", "Q4_K"]);

    let wrong_size = decode(GgmlType::Q4_0, &[0; 17], &mut [0.0; 32]).unwrap_err().to_string();
    assert!(wrong_size.contains("17 bytes") && wrong_size.contains("Q4_0"), "{wrong_size}");
    let unknown = decode(GgmlType::IQ2_XXS, &[0; 66], &mut [0.0; 256]).unwrap_err().to_string();
    assert!(unknown.contains("IQ2_XXS") && unknown.contains("MXFP4"), "{unknown}");
}

#[test]
fn types_have_names_and_ids() {
    for &ty in GgmlType::ALL {
        assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
        assert_eq!(ty.name().to_lowercase().parse::<GgmlType>().unwrap(), ty);
        assert_eq!(ty.row_bytes(ty.block_values() * 3), Some(ty.block_bytes() * 3));
        assert_eq!(
            ty.row_bytes(usize::MAX - usize::MAX % ty.block_values()).is_none(),
            ty.block_bytes() > ty.block_values()
        );
        assert!(!ty.is_encodable() || ty.is_decodable());
    }
    assert_eq!((GgmlType::from_id(4), GgmlType::from_id(31), GgmlType::from_id(43)), (None, None, None));
    assert_eq!(GgmlType::Q4_K.row_bytes(255), None);
    assert!("Q9_Z".parse::<GgmlType>().unwrap_err().to_string().contains("Q4_K"));
}

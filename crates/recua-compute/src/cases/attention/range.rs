//! Keys and values at and beyond the range of f16. In an f16 cache, what is finite is cut to it and counted; infinities and NaN stay, and reach
//! the result. An f32 cache keeps everything.

use super::{Layer, Row, World, scale};
use crate::cases::{Measured, Report, Tolerance};
use crate::device::Device;
use crate::error::Result;
use crate::kv::KvType;
use crate::op::RopeStyle;

pub(super) fn check(device: &Device, report: &mut Report) {
    for kv_type in [KvType::F16, KvType::F32] {
        for head_dim in [64, 20, 6] {
            report.case("attention", format!("{kv_type} cache, heads of {head_dim}, any number"), || {
                any_number(device, kv_type, head_dim)
            });
        }
    }
}

/// The largest number of f16.
const LARGEST: f32 = 65504.0;

/// Values of the only token of sequence 0. The first head has them, the second their negatives.
const VALUES: [f32; 6] = [65504.0, 65519.0, 65536.0, 1e5, 3e38, 0.25];
const CUT: usize = 4;

/// The element that keys and queries have; it is not rotated.
const D: usize = 5;

/// In sequence 1, one key is this, the other nothing.
const KEY: f32 = -1e6;

/// A sequence whose queries are beyond the range of f16, and one of its keys, which is far inside.
const LARGE_QUERY: usize = 6;
const LARGE: f32 = 1048576.0;
const SMALL_KEY: f32 = 8.0 / LARGE;

/// Sequences of one token whose value, and of two tokens the first of whose keys, is no finite number.
const NOT_FINITE: [f32; 2] = [f32::NAN, f32::INFINITY];
const BAD_VALUES: usize = 2;
const BAD_KEYS: usize = 4;

fn any_number(device: &Device, kv_type: KvType, head_dim: usize) -> Result<Vec<Measured>> {
    let layer = Layer {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim,
        kv_type,
        style: RopeStyle::Interleaved,
        n_rot: 2,
        norm: false,
    };
    // A score of 1 at the edge of the range.
    let query = -1.0 / (LARGEST * scale(layer));
    let data = |(sequence, position): Row, part: u64| -> Vec<f32> {
        let mut heads = vec![0.0; head_dim * if part == 0 { layer.n_heads } else { layer.n_kv_heads }];
        for (h, head) in heads.chunks_exact_mut(head_dim).enumerate() {
            match (part, sequence, position) {
                (0, LARGE_QUERY, _) => head[D] = LARGE,
                (0, ..) => head[D] = query,
                (1, LARGE_QUERY, 0) => head[D] = SMALL_KEY,
                (1, 1, 0) => head[D] = KEY,
                (1, BAD_KEYS..LARGE_QUERY, 0) => head[D] = NOT_FINITE[sequence - BAD_KEYS],
                (2, 0, _) => {
                    let sign = if h == 0 { 1.0 } else { -1.0 };
                    head.iter_mut().zip(VALUES).for_each(|(x, value)| *x = sign * value);
                }
                (2, BAD_VALUES..BAD_KEYS, _) => head[D] = NOT_FINITE[sequence - BAD_VALUES],
                (2, _, 0) => head.fill(1.0),
                _ => {}
            }
        }
        heads
    };
    let rows: Vec<Row> = (0..=LARGE_QUERY)
        .flat_map(|s| {
            (0..if s == 0 || (BAD_VALUES..BAD_KEYS).contains(&s) { 1 } else { 2 }).map(move |p| (s, p))
        })
        .collect();
    let n_cut = device.n_cut()?;
    let world = World::new(device, layer, LARGE_QUERY + 1, 1)?;
    let (_, out) = world.pass_of(&rows, data)?;
    let n_cut = device.n_cut()? - n_cut;

    let width = layer.n_heads * head_dim;
    let of = |row: Row| {
        let i = rows.iter().position(|r| *r == row).expect("a row of this pass");
        &out[i * width..][..width]
    };
    let is_f16 = kv_type == KvType::F16;
    let held = |x: f32| if is_f16 { x.clamp(-LARGEST, LARGEST) } else { x };
    let values: Vec<f32> = (0..layer.n_heads)
        .flat_map(|h| {
            let sign = if h < 2 { 1.0 } else { -1.0 };
            (0..head_dim).map(move |d| VALUES.get(d).map_or(0.0, |value| sign * held(*value)))
        })
        .collect();
    let score = f64::from(held(KEY) * query * scale(layer));
    let weight = |score: f64| 1.0 / (1.0 + (-score).exp());
    let large = f64::from(LARGE * SMALL_KEY * scale(layer));
    let tolerance = if is_f16 { Tolerance::F16_CACHE } else { Tolerance::F32_CACHE };
    let is_finite = |row: Row, d: usize| of(row).iter().skip(d).step_by(head_dim).any(|x| x.is_finite());
    let bad = (BAD_VALUES..BAD_KEYS).map(|s| is_finite((s, 0), D));
    let nan_key = of((BAD_KEYS, 1)).iter().any(|x| !x.is_nan());
    Ok(vec![
        Measured::exact("values", of((0, 0)), &values),
        Measured::new("a key", of((1, 1)), &vec![weight(score); width], |_| 1.0, tolerance),
        Measured::new("a query", of((LARGE_QUERY, 1)), &vec![weight(large); width], |_| 1.0, tolerance),
        Measured::exact("values that are no finite numbers", &bad.collect::<Vec<_>>(), &[false; 2]),
        Measured::exact("a key that is no number", &[nan_key], &[false]),
        Measured::exact("the count", &[n_cut], &[if is_f16 { (2 * CUT + 2) as u64 } else { 0 }]),
    ])
}

//! The shared op cases.

use crate::device;
use recua_compute::cases::data::Random;
use recua_compute::{
    Attention, Buffer, DType, Device, KvPool, KvShape, KvType, PAGE_TOKENS, Record, RopeStore, RopeStyle,
    RowMap, RowRun, WorkList, cases,
};

#[test]
fn ops_match_the_reference() {
    let Some(device) = device() else { return };
    let report = cases::check_all(device);
    println!("{}: {}\n{report}", device.info().name, device.info().detail);
    report.assert();
}

#[test]
fn a_rows_bits_do_not_depend_on_its_companions() {
    let Some(device) = device() else { return };
    let report = cases::check_same_bits(device);
    println!("{report}");
    report.assert();
}

#[test]
fn random_plans_do_what_their_operands_say() {
    let Some(device) = device() else { return };
    let tally = cases::random_plans::check(device, 2, 12).unwrap_or_else(|e| panic!("{e}"));
    println!("{tally:?}");
    assert!(tally.ran > 8 && tally.recorded > 40, "{tally:?}");
}

/// Contexts of several chunks: a row alone, whose chunks run side by side, and the same row among its neighbours.
#[test]
fn long_contexts_have_the_same_bits_split_or_not() {
    let Some(device) = device() else { return };
    for kv_type in [KvType::F16, KvType::F32] {
        for (n_heads, n_kv_heads, head_dim) in [(4, 2, 64), (8, 2, 128), (3, 3, 80), (9, 1, 32), (4, 2, 20)] {
            let world = World::new(device, kv_type, n_heads, n_kv_heads, head_dim, 1);
            let all: Vec<u32> = (0..N_TOKENS).collect();
            let expected = world.pass(&all, true);
            world.check(&expected, kv_type);
            let width = n_heads * head_dim;
            let same = |rows: &[u32]| {
                let found = world.pass(rows, false);
                for (i, &row) in rows.iter().enumerate() {
                    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let (a, b) = (&found[i * width..][..width], &expected[row as usize * width..][..width]);
                    assert_eq!(bits(a), bits(b), "position {row} of {}, {n_heads} heads", rows.len());
                }
            };
            for position in [0, 1, 127, 128, 129, 300, N_TOKENS - 1] {
                same(&[position]);
            }
            same(&all[200..303]);
            // Enough rows that none is split, but too few for wide tiles.
            same(&all[300..364]);
            same(&[5, 400, 128]);
        }
    }
}

const N_TOKENS: u32 = 410;

/// A cache of 160 MiB per buffer, where a software adapter binds 128 MiB.
#[test]
fn a_cache_larger_than_a_binding_is_spread_over_allocations() {
    let Some(device) = device() else { return };
    let world = World::new(device, KvType::F32, 8, 4, 256, 98);
    let all: Vec<u32> = (0..N_TOKENS).collect();
    let together = world.pass(&all, true);
    world.check(&together, KvType::F32);
    assert_eq!(world.pass(&[409], false), together[409 * 2048..]);
}

struct World<'a> {
    device: &'a Device,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    shape: [usize; 3],
    cache: KvPool,
    pages: Buffer,
    table: Buffer,
}

impl World<'_> {
    /// Uses every `stride`th page of the cache for the sequence.
    fn new(
        device: &Device,
        kv_type: KvType,
        n_heads: usize,
        n_kv_heads: usize,
        head_dim: usize,
        stride: u32,
    ) -> World<'_> {
        let n_pages = N_TOKENS.div_ceil(PAGE_TOKENS as u32);
        let mut seeded = Random::new(7);
        let mut random =
            |n: usize, size: f32| -> Vec<f32> { seeded.f32s(n).iter().map(|value| value * size).collect() };
        let n = N_TOKENS as usize;
        let (q, k) = (random(n * n_heads * head_dim, 3.0), random(n * n_kv_heads * head_dim, 1.0));
        let v = random(n * n_kv_heads * head_dim, 1.0);
        let shape = KvShape { n_pages: (n_pages * stride) as usize, n_kv_heads, head_dim, kv_type };
        let cache = device.alloc_kv(&shape).unwrap();
        for memory in cache.memory() {
            device.write(memory, &vec![0xffu8; memory.n_bytes()]).unwrap();
        }
        let pages: Vec<u32> = (0..n_pages).rev().map(|page| page * stride).collect();
        let pages = device.upload(&pages, DType::U32, &[1, n_pages as usize]).unwrap();
        // No rotation: cosine 1, sine 0.
        let angles: Vec<f32> = [1.0, 0.0].repeat(n * head_dim / 2);
        let table = device.upload(&angles, DType::F32, &[n, head_dim / 2, 2]).unwrap();
        World { device, q, k, v, shape: [n_heads, n_kv_heads, head_dim], cache, pages, table }
    }

    /// Attention of some positions; if `store`, their keys and values are stored first.
    fn pass(&self, positions: &[u32], store: bool) -> Vec<f32> {
        let [n_heads, n_kv_heads, head_dim] = self.shape;
        let (device, n) = (self.device, positions.len());
        let take = |data: &[f32], width: usize| {
            let rows = positions.iter().flat_map(|&p| data[p as usize * width..][..width].iter().copied());
            device.upload(&rows.collect::<Vec<_>>(), DType::F32, &[n, width]).unwrap()
        };
        let q = take(&self.q, n_heads * head_dim);
        let sequences = vec![0u32; n];
        let mut list = WorkList::new();
        let tiling = device.tiling(self.cache.shape(), n_heads);
        let work = list.build(&tiling, n, RowRun::of(&sequences, positions)).unwrap();
        let u32s = |values: &[u32]| device.upload(values, DType::U32, &[values.len()]).unwrap();
        let rows = RowMap {
            positions: u32s(positions),
            sequences: u32s(&sequences),
            pages: self.pages.clone(),
            work: u32s(work),
        };
        let out = device.alloc(DType::F32, &[n, n_heads * head_dim]).unwrap();
        let mut plan = device.plan();
        if store {
            let (k, v) = (take(&self.k, n_kv_heads * head_dim), take(&self.v, n_kv_heads * head_dim));
            let op = RopeStore {
                q: q.clone(),
                k,
                v,
                norm: None,
                table: self.table.clone(),
                style: RopeStyle::Interleaved,
                rows: rows.clone(),
                cache: self.cache.clone(),
            };
            plan.rope_store(op).unwrap();
        }
        let cache = self.cache.clone();
        plan.attention(Attention { q, rows, cache, scale: 0.125, out: out.clone() }).unwrap();
        device.run(&plan).unwrap().wait().unwrap();
        device.read_vec(&out).unwrap()
    }

    /// Compares a pass over all positions with sums in f64, at some of them.
    fn check(&self, found: &[f32], kv_type: KvType) {
        let [n_heads, n_kv_heads, head_dim] = self.shape;
        let tolerance = if kv_type == KvType::F16 { 1e-3 } else { 1e-5 };
        for position in [0, 1, 127, 128, 255, 256, 409] {
            for h in 0..n_heads {
                let kv = h / (n_heads / n_kv_heads);
                let q = &self.q[(position * n_heads + h) * head_dim..][..head_dim];
                let place = |p: usize| (p * n_kv_heads + kv) * head_dim;
                let dot = |p: usize| -> f64 {
                    let k = &self.k[place(p)..][..head_dim];
                    q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * 0.125
                };
                let weights: Vec<f64> = (0..=position).map(|p| dot(p).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let v = |p: usize| f64::from(self.v[place(p) + d]);
                    let exact = weights.iter().enumerate().map(|(p, w)| w * v(p)).sum::<f64>() / total;
                    let found = f64::from(found[(position * n_heads + h) * head_dim + d]);
                    assert!((found - exact).abs() < tolerance, "{position} {h} {d}: {found}, not {exact}");
                }
            }
        }
    }
}

//! The ops without a device around them: garbage after the rows, wrong indexes, the same bits on every instruction set and with every
//! number of threads. `crate::cases` tests whether the numbers are right.

use super::*;
use crate::buffer::{Buffer, DType};
use crate::cpu::Allocated;
use crate::cpu::isa::Isa;
use crate::cpu::memory::{ptr, slice, slice_mut};
use crate::cpu::pool::{Pool, Worker};
use crate::device::Device;
use crate::kv::{KvShape, KvType};
use crate::op::*;
use crate::work::HEADER_WORDS;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> =
        LazyLock::new(|| crate::cpu::open(crate::cpu::Options { threads: Some(1), isa: None }).unwrap());
    &DEVICE
}

fn buffer(dtype: DType, shape: &[usize]) -> Buffer {
    device().alloc(dtype, shape).unwrap()
}

fn filled<T: bytemuck::Pod>(dtype: DType, shape: &[usize], values: &[T]) -> Buffer {
    let buffer = buffer(dtype, shape);
    // SAFETY: nothing else uses the buffer yet.
    unsafe { slice_mut::<T>(&buffer, 0, values.len()) }.copy_from_slice(values);
    buffer
}

fn f32s(shape: &[usize], seed: u64) -> Buffer {
    let values = crate::cases::data::values(shape.iter().product(), seed);
    filled(DType::F32, shape, &values)
}

fn read<T: bytemuck::Pod>(buffer: &Buffer) -> Vec<T> {
    // SAFETY: no op is running.
    unsafe { slice::<T>(buffer) }.to_vec()
}

fn run(pool: &mut Pool, op: impl Fn(&Worker<'_>) -> crate::error::Result<()> + Sync) {
    pool.run(&|worker| op(worker).unwrap());
}

/// A map of rows, each a sequence and a position. The pages of each sequence are scattered over the pool.
fn row_map(rows: &[(u32, u32)], pages_max: usize, n_pages: usize) -> RowMap {
    let n_sequences = rows.iter().map(|r| r.0 as usize + 1).max().unwrap();
    let table: Vec<u32> = (0..n_sequences * pages_max).map(|i| (i * 7 % n_pages) as u32).collect();
    let column = |f: fn(&(u32, u32)) -> u32| rows.iter().map(f).collect::<Vec<_>>();
    RowMap {
        sequences: filled(DType::U32, &[rows.len()], &column(|r| r.0)),
        positions: filled(DType::U32, &[rows.len()], &column(|r| r.1)),
        pages: filled(DType::U32, &[n_sequences, pages_max], &table),
        work: buffer(DType::U32, &[HEADER_WORDS]),
    }
}

fn cache(kv_type: KvType, n_pages: usize, n_kv_heads: usize, head_dim: usize) -> KvPool {
    let pool = device().alloc_kv(&KvShape { n_pages, n_kv_heads, head_dim, kv_type }).unwrap();
    for buffer in pool.memory() {
        // SAFETY: nothing else uses the buffer yet; 0xff makes NaN of both types.
        unsafe { ptr(buffer).write_bytes(0xff, buffer.n_bytes()) };
    }
    pool
}

/// Rope and attention of `rows` whose sequences start at 0, in batches of `batch` rows.
fn whole(
    pool: &mut Pool,
    isa: Isa,
    rows: &[(u32, u32)],
    heads: (usize, usize, usize),
    kv_type: KvType,
    batch: usize,
) -> Vec<f32> {
    let (n_heads, n_kv_heads, head_dim) = heads;
    let positions_max = rows.iter().map(|row| row.1 as usize + 1).max().unwrap().max(4 * PAGE_TOKENS);
    let pages_max = positions_max.div_ceil(PAGE_TOKENS);
    let n_pages = 29;
    let cache = cache(kv_type, n_pages, n_kv_heads, head_dim);
    let q = f32s(&[rows.len(), n_heads * head_dim], 1);
    let k = f32s(&[rows.len(), n_kv_heads * head_dim], 2);
    let v = f32s(&[rows.len(), n_kv_heads * head_dim], 3);
    let table = f32s(&[positions_max, head_dim / 2, 2], 4);
    let out = buffer(DType::F32, q.shape());
    let norm = HeadNorm { q: f32s(&[head_dim], 5), k: f32s(&[head_dim], 6), eps: 1e-5 };
    let part = |b: &Buffer, first: usize, n: usize| b.view(first * b.n_cols(), &[n, b.n_cols()]).unwrap();
    for (i, chunk) in rows.chunks(batch).enumerate() {
        let (first, n) = (i * batch, chunk.len());
        let mut map = row_map(rows, pages_max, n_pages);
        map.positions = map.positions.view(first, &[n]).unwrap();
        map.sequences = map.sequences.view(first, &[n]).unwrap();
        let rope = RopeStore {
            q: part(&q, first, n),
            k: part(&k, first, n),
            v: part(&v, first, n),
            norm: Some(norm.clone()),
            table: table.clone(),
            style: RopeStyle::Halves,
            rows: map.clone(),
            cache: cache.clone(),
        };
        check_rope_store(&rope).unwrap();
        run(pool, |worker| rope_store(&rope, worker, isa, &AtomicU64::new(0)));
        let op =
            Attention { q: rope.q, rows: map, cache: cache.clone(), scale: 0.3, out: part(&out, first, n) };
        check_attention(&op).unwrap();
        let allocated = Allocated { device: "test", bytes: Default::default() };
        let mut spans = Spans::default();
        let op = Op::Attention(op);
        spans.reserve([&op].into_iter(), pool.n_threads(), &allocated).unwrap();
        let Op::Attention(op) = &op else { unreachable!() };
        run(pool, |worker| attention(op, worker, isa, &spans));
    }
    read(&out)
}

#[test]
fn attention_has_the_same_bits_for_every_cut_thread_count_and_instruction_set() {
    // Two sequences, one row of the second between those of the first.
    let mut rows: Vec<(u32, u32)> = (0..70).map(|p| (0, p)).collect();
    rows.insert(40, (1, 0));
    rows.extend((1..5).map(|p| (1, p)));
    for heads in [(4, 2, 64), (3, 1, 80), (2, 2, 6), (10, 2, 32)] {
        for dtype in [KvType::F16, KvType::F32] {
            let mut pool = Pool::new(1).unwrap();
            let expected = whole(&mut pool, Isa::Scalar, &rows, heads, dtype, rows.len());
            assert!(expected.iter().all(|x| x.is_finite()), "garbage after the rows was read");
            for (isa, threads, batch) in [
                (Isa::Scalar, 3, 1),
                (Isa::Avx2, 1, 7),
                (Isa::Avx2, 2, 75),
                (Isa::Avx512, 1, 75),
                (Isa::Avx512, 3, 5),
            ] {
                if isa.is_available() {
                    let mut pool = Pool::new(threads).unwrap();
                    let found = whole(&mut pool, isa, &rows, heads, dtype, batch);
                    let same = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{heads:?} {dtype} {isa}, {threads} threads, batches of {batch}");
                }
            }
        }
    }
}

#[test]
fn threads_that_share_a_sequence_give_the_same_bits() {
    let rows: Vec<(u32, u32)> = (0..600).map(|p| (0, p)).collect();
    for heads in [(4, 2, 64), (2, 1, 6)] {
        let mut pool = Pool::new(1).unwrap();
        let expected = whole(&mut pool, Isa::best(), &rows, heads, KvType::F16, rows.len());
        assert!(expected.iter().all(|x| x.is_finite()), "garbage after the rows was read");
        for (threads, batch) in [(2, 1), (5, 2), (9, 50), (9, 3)] {
            let mut pool = Pool::new(threads).unwrap();
            let found = whole(&mut pool, Isa::best(), &rows, heads, KvType::F16, batch);
            let same = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{heads:?}, {threads} threads, batches of {batch}");
        }
    }
}

#[test]
fn indexes_are_checked() {
    let cache = cache(KvType::F16, 3, 1, 4);
    let check = |rows: &[(u32, u32)], table: &[u32], positions_max: usize| {
        let mut map = row_map(rows, 2, 3);
        map.pages = filled(DType::U32, &[table.len() / 2, 2], table);
        let n = rows.len();
        let (q, k, v) =
            (buffer(DType::F32, &[n, 4]), buffer(DType::F32, &[n, 4]), buffer(DType::F32, &[n, 4]));
        let rope = RopeStore {
            q: q.clone(),
            k,
            v,
            norm: None,
            table: buffer(DType::F32, &[positions_max, 2, 2]),
            style: RopeStyle::Interleaved,
            rows: map.clone(),
            cache: cache.clone(),
        };
        let attention =
            Attention { out: buffer(DType::F32, &[n, 4]), q, rows: map, cache: cache.clone(), scale: 1.0 };
        let text =
            |result: crate::error::Result<()>| result.map_or_else(|e| e.to_string(), |()| String::new());
        (text(check_rope_store(&rope)), text(check_attention(&attention)))
    };
    let ok = || (String::new(), String::new());
    assert_eq!(check(&[(0, 0), (0, 63), (1, 5)], &[0, 1, 2, 0], 64), ok());
    let both = |text: &str| (format!("rope_store: {text}"), format!("attention: {text}"));
    assert_eq!(check(&[(2, 0)], &[0, 1, 2, 0], 64), both("the sequence 2 is out of range, the limit is 2"));
    assert_eq!(check(&[(0, 64)], &[0, 1], 99), both("the position 64 is out of range, the limit is 64"));
    assert_eq!(check(&[(0, 9)], &[3, 1], 99), both("the page 3 is out of range, the limit is 3"));
    // rope_store touches the row's own page only, attention all before it.
    let (rope, attention) = check(&[(0, 5), (1, 40)], &[0, 0, 9, 1], 99);
    assert_eq!(
        (rope.as_str(), attention.as_str()),
        ("", "attention: the page 9 is out of range, the limit is 3")
    );
    assert_eq!(
        check(&[(0, 40)], &[0, 1], 40).0,
        "rope_store: the position 40 is out of range, the limit is 40"
    );
    assert_eq!(
        check(&[(0, 3), (1, 0), (0, 3)], &[0, 1, 2, 1], 64).0,
        "rope_store: two rows write offset 3 of page 0"
    );
}

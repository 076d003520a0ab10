//! `rope_store`: rotates q in place, rotates k, and writes k and v into the cache at the row's position. If the model has head norms, each
//! head of q and k is normalized before the rotation. A thread takes a share of the (head, row) pairs. Bound by memory.
//!
//! Inside a page, this device stores for each KV head K as `[head_dim, PAGE_TOKENS]`, so that the scores of neighbouring tokens are
//! neighbouring lanes, and V as `[PAGE_TOKENS, head_dim]`.

use super::rms_norm::normalise_body;
use super::{Rows, check_index};
use crate::buffer::Buffer;
use crate::cpu::isa::Isa;
use crate::cpu::kv::Kv;
use crate::cpu::math::{Lanes, vectorised};
use crate::cpu::memory::{ptr, row_mut, row_of, slice, slice_mut};
use crate::cpu::pool::Worker;
use crate::error::{Error, Result, argument};
use crate::kv::KvType;
use crate::op::{PAGE_TOKENS, RopeStore, RopeStyle};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Checks the row map against the cache and the table, and that no two rows write the same place.
pub(crate) fn check_rope_store(op: &RopeStore) -> Result<()> {
    let name = "rope_store";
    // SAFETY: the queue is held and no op is running.
    let rows = unsafe { Rows::new(&op.rows) };
    Kv::of(name, &op.cache)?;
    rows.check(name, &op.cache, false)?;
    let n_rows = rows.positions.len();
    let live = || (0..n_rows).filter(|row| rows.is_live(*row));
    for row in live() {
        check_index(name, "the position", rows.positions[row], op.table.shape()[0])?;
    }
    let places = || {
        live().map(|row| {
            let position = rows.positions[row] as usize;
            rows.page(row, position / PAGE_TOKENS) * PAGE_TOKENS + position % PAGE_TOKENS
        })
    };
    // Pages are mostly handed out in order, so the places usually ascend and need not be sorted.
    if places().is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut list: Vec<usize> = reserve(n_rows)?;
    list.extend(places());
    list.sort_unstable();
    match list.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let (page, offset) = (pair[0] / PAGE_TOKENS, pair[0] % PAGE_TOKENS);
            Err(argument(name, format!("two rows write offset {offset} of page {page}")))
        }
        None => Ok(()),
    }
}

/// See [`RopeStore`]. Adds to `n_cut` how many elements an f16 cache had no room for.
pub(crate) fn rope_store(op: &RopeStore, worker: &Worker<'_>, isa: Isa, n_cut: &AtomicU64) -> Result<()> {
    // SAFETY: the op writes q and the cache, which overlap none of these (`Op::check`; the row map has another type).
    let (rows, table) = unsafe { (Rows::new(&op.rows), slice::<f32>(&op.table)) };
    let norm = op.norm.as_ref().map(|norm| {
        // SAFETY: as above.
        unsafe { (slice::<f32>(&norm.q), slice::<f32>(&norm.k), norm.eps) }
    });
    let n_rows = rows.positions.len();
    let (cache, shape) = (Kv::of("rope_store", &op.cache)?, op.cache.shape());
    let (n_kv_heads, head_dim) = (shape.n_kv_heads, shape.head_dim);
    let n_heads = op.q.n_cols() / head_dim;
    let pairs = op.table.shape()[1];
    let mut head: Vec<f32> = reserve(head_dim)?;
    let mut converted: Vec<f16> = reserve(head_dim)?;
    head.resize(head_dim, 0.0);
    converted.resize(head_dim, f16::ZERO);
    // Heads are outermost, so that two threads share a page's memory at most once.
    for unit in worker.share((n_heads + n_kv_heads) * n_rows) {
        let (h, row) = (unit / n_rows, unit % n_rows);
        if !rows.is_live(row) {
            continue;
        }
        let position = rows.positions[row] as usize;
        let angles = &table[position * pairs * 2..][..pairs * 2];
        if h < n_heads {
            // SAFETY: each head of each row belongs to one share.
            let q: &mut [f32] = unsafe { row_mut(&op.q, row, h * head_dim, head_dim) };
            prepare(isa, q, norm.map(|(q, _, eps)| (q, eps)), angles, op.style);
            continue;
        }
        let kv_head = h - n_heads;
        // SAFETY: the op writes q and the cache, which overlap neither k nor v.
        let [k, v]: [&[f32]; 2] =
            [&op.k, &op.v].map(|buffer| unsafe { row_of(buffer, row, kv_head * head_dim, head_dim) });
        head.copy_from_slice(k);
        prepare(isa, &mut head, norm.map(|(_, k, eps)| (k, eps)), angles, op.style);
        let page = (rows.page(row, position / PAGE_TOKENS) * n_kv_heads + kv_head) * PAGE_TOKENS * head_dim;
        let page_offset = position % PAGE_TOKENS;
        if shape.kv_type == KvType::F32 {
            // SAFETY: no two rows write one place (`check_rope_store`), and each head of a row belongs to one share.
            unsafe { store_column(&cache.k, page + page_offset, &head) };
            // SAFETY: as above.
            unsafe { slice_mut(&cache.v, page + page_offset * head_dim, head_dim) }.copy_from_slice(v);
        } else {
            let mut cut = convert(&head, &mut converted);
            // SAFETY: as above.
            unsafe { store_column(&cache.k, page + page_offset, &converted) };
            // SAFETY: as above.
            cut += convert(v, unsafe { slice_mut(&cache.v, page + page_offset * head_dim, head_dim) });
            if cut > 0 {
                n_cut.fetch_add(cut as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Converts to f16. What is finite and beyond its range is cut to it; returns how many elements that was.
fn convert(values: &[f32], out: &mut [f16]) -> usize {
    out.convert_from_f32_slice(values);
    let beyond = |x: f32| x.abs() > f32::from(f16::MAX);
    if !values.iter().fold(false, |any, x| any | beyond(*x)) {
        return 0;
    }
    let mut cut = 0;
    for (out, x) in out.iter_mut().zip(values).filter(|(_, x)| x.is_finite() && beyond(**x)) {
        *out = if *x < 0.0 { f16::MIN } else { f16::MAX };
        cut += 1;
    }
    cut
}

/// Writes `values` to every `PAGE_TOKENS`th element of `k` from `first` on. It writes element by element, because the elements between belong
/// to other rows and perhaps other threads, so that no slice may cover them.
///
/// # Safety
/// The queue is held, and no other thread reads or writes these elements. `T` is a plain number of the buffer's element size.
unsafe fn store_column<T: bytemuck::Pod>(k: &Buffer, first: usize, values: &[T]) {
    debug_assert_eq!(size_of::<T>(), k.dtype().size_of());
    assert!(first + values.len().saturating_sub(1) * PAGE_TOKENS < k.n_elements(), "outside the cache");
    let start = ptr(k).cast::<T>();
    for (d, &value) in values.iter().enumerate() {
        // SAFETY: the last element lies inside the view, as just checked; the rest is the caller's promise.
        unsafe { start.add(first + d * PAGE_TOKENS).write(value) };
    }
}

/// Normalizes one head if `norm` is given, and rotates it, in place.
#[inline(always)]
fn prepare_body<V: Lanes>(
    set: V::Set,
    head: &mut [f32],
    norm: Option<(&[f32], f32)>,
    angles: &[f32],
    style: RopeStyle,
) {
    if let Some((weight, eps)) = norm {
        normalise_body::<V>(set, head, weight, eps);
    }
    let (angles, _) = angles.as_chunks::<2>();
    match style {
        RopeStyle::Interleaved => {
            let (pairs, _) = head.as_chunks_mut::<2>();
            for (pair, [cos, sin]) in pairs.iter_mut().zip(angles) {
                let [a, b] = *pair;
                *pair = [a.mul_add(*cos, -(b * sin)), a.mul_add(*sin, b * cos)];
            }
        }
        RopeStyle::Halves => {
            let (first, second) = head.split_at_mut(angles.len());
            for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = (a.mul_add(*cos, -(*b * sin)), a.mul_add(*sin, *b * cos));
            }
        }
    }
}

vectorised! {
    fn prepare(isa, head: &mut [f32], norm: Option<(&[f32], f32)>, angles: &[f32], style: RopeStyle) = prepare_body
}

/// An empty list with room for `n` elements.
fn reserve<T>(n: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(n).map_err(|_| Error::OutOfMemory {
        device: "cpu".into(),
        what: "scratch of rope_store".into(),
        requested_bytes: n * size_of::<T>(),
    })?;
    Ok(list)
}

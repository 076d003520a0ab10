//! `copy_pages`: copies whole pages of K and V, from one pool to another or within one. A thread takes whole pages. Bound by memory.

use super::check_index;
use crate::cpu::kv::Kv;
use crate::cpu::memory::{ptr, slice};
use crate::cpu::pool::Worker;
use crate::error::{Error, Result, argument};
use crate::op::{CopyPages, INERT};

/// Checks that the pages exist and that the order of the pairs does not matter.
pub(crate) fn check_copy_pages(op: &CopyPages) -> Result<()> {
    let name = "copy_pages";
    Kv::of(name, &op.from)?;
    Kv::of(name, &op.to)?;
    let (mut read, mut written) = (Vec::new(), Vec::new());
    // SAFETY: the queue is held and no op is running.
    for [from, to] in pairs(unsafe { slice::<u32>(&op.list) }) {
        check_index(name, "the page to read", from, op.from.shape().n_pages)?;
        check_index(name, "the page to write", to, op.to.shape().n_pages)?;
        for list in [&mut read, &mut written] {
            list.try_reserve(1).map_err(|_| Error::OutOfMemory {
                device: "cpu".into(),
                what: "scratch of copy_pages".into(),
                requested_bytes: op.list.n_bytes(),
            })?;
        }
        read.push(from);
        written.push(to);
    }
    written.sort_unstable();
    if let Some(pair) = written.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(argument(name, format!("page {} is written twice", pair[0])));
    }
    let is_one = op.from.is_same(&op.to);
    match read.iter().find(|page| is_one && written.binary_search(page).is_ok()) {
        Some(page) => Err(argument(name, format!("page {page} is read and written"))),
        None => Ok(()),
    }
}

/// See [`CopyPages`].
pub(crate) fn copy_pages(op: &CopyPages, worker: &Worker<'_>) -> Result<()> {
    let (from, to) = (Kv::of("copy_pages", &op.from)?, Kv::of("copy_pages", &op.to)?);
    let page_bytes = from.k.n_bytes() / op.from.shape().n_pages;
    // SAFETY: the op writes only the cache, and the list has another type.
    let list = unsafe { slice::<u32>(&op.list) };
    let share = worker.share(list.len() / 2);
    for [src_page, dst_page] in pairs(&list[2 * share.start..2 * share.end]) {
        for (src, dst) in [(&from.k, &to.k), (&from.v, &to.v)] {
            // SAFETY: both pages are inside their pools, and no page is written by one pair and touched by another
            // (`check_copy_pages`).
            unsafe {
                let src = ptr(src).add(src_page as usize * page_bytes);
                std::ptr::copy_nonoverlapping(src, ptr(dst).add(dst_page as usize * page_bytes), page_bytes);
            }
        }
    }
    Ok(())
}

/// The pairs to be copied.
fn pairs(list: &[u32]) -> impl Iterator<Item = [u32; 2]> + '_ {
    let (pairs, _) = list.as_chunks::<2>();
    pairs.iter().copied().filter(|pair| !pair.contains(&INERT))
}

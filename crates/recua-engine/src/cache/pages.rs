//! [`Pages`]: which pages of the cache are in use, and their reference counts. Integers only; it knows nothing of devices.

use crate::error::{Error, Result};

/// A pool of numbered pages with reference counts. `n_free() + n_used() == n_pages()`, always; [`Pages::check`] verifies it.
#[derive(Clone, Debug)]
pub struct Pages {
    // References to each page; 0 is free.
    references: Vec<u32>,
    // The free pages; the last one is taken next.
    free: Vec<u32>,
}

impl Pages {
    /// `n_pages` free pages. Fails if the host has no memory for their counts.
    pub(crate) fn new(n_pages: usize) -> Result<Pages> {
        let n = u32::try_from(n_pages).map_err(|_| Error::Config {
            field: "kv_pages",
            problem: format!("{n_pages} pages are too many; at most 2^32 can be numbered"),
        })?;
        let (mut references, mut free) = (Vec::new(), Vec::new());
        let no_memory = |_| Error::HostMemory { what: "the list of pages", bytes: n_pages * 4 };
        references.try_reserve_exact(n_pages).map_err(no_memory)?;
        free.try_reserve_exact(n_pages).map_err(no_memory)?;
        references.resize(n_pages, 0);
        free.extend((0..n).rev());
        Ok(Pages { references, free })
    }

    /// A pool in which `references[page]` is the reference count of each page.
    pub(crate) fn with_references(references: Vec<u32>) -> Result<Pages> {
        let mut pages = Pages::new(references.len())?;
        pages.free.retain(|page| references[*page as usize] == 0);
        pages.references = references;
        Ok(pages)
    }

    /// The number of pages.
    pub fn n_pages(&self) -> usize {
        self.references.len()
    }

    /// Pages without references.
    pub fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Pages with references.
    pub fn n_used(&self) -> usize {
        self.n_pages() - self.n_free()
    }

    /// The reference count of `page`; 0 if it is free or does not exist.
    pub fn references(&self, page: u32) -> u32 {
        self.references.get(page as usize).copied().unwrap_or(0)
    }

    /// Takes a free page and sets its reference count to 1.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.references[page as usize] = 1;
        Some(page)
    }

    /// Adds a reference to `page`, which must be in use.
    pub(crate) fn retain(&mut self, page: u32) -> Result<()> {
        match self.references.get_mut(page as usize) {
            Some(n @ 1..) => *n = n.checked_add(1).ok_or_else(|| problem(page, "has too many references"))?,
            _ => return Err(problem(page, "is not in use")),
        }
        Ok(())
    }

    /// Removes a reference to `page`; without references, it is free. Returns whether it is free now.
    pub(crate) fn release(&mut self, page: u32) -> Result<bool> {
        match self.references.get_mut(page as usize) {
            Some(n @ 1..) => *n -= 1,
            _ => return Err(problem(page, "is not in use, so it cannot be released")),
        }
        let is_free = self.references(page) == 0;
        if is_free {
            self.free.push(page);
        }
        Ok(is_free)
    }

    /// Audits the pool: each page is either in the free list, once, or in use.
    pub fn check(&self) -> Result<()> {
        let mut is_free = vec![false; self.n_pages()];
        for &page in &self.free {
            match is_free.get_mut(page as usize) {
                Some(seen @ false) => *seen = true,
                _ => return Err(problem(page, "is in the free list twice, or does not exist")),
            }
        }
        for (page, (free, references)) in (0u32..).zip(is_free.iter().zip(&self.references)) {
            if *free != (*references == 0) {
                return Err(problem(page, &format!("free: {free}, references: {references}")));
            }
        }
        Ok(())
    }
}

pub(super) fn problem(page: u32, problem: &str) -> Error {
    Error::Page { page, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
    use super::*;

    #[test]
    fn references_keep_a_page() {
        let mut pages = Pages::new(3).unwrap();
        let (a, b) = (pages.take().unwrap(), pages.take().unwrap());
        assert_eq!((a, b, pages.n_free(), pages.n_used()), (0, 1, 1, 2));
        pages.retain(a).unwrap();
        assert!(!pages.release(a).unwrap());
        assert!(pages.release(a).unwrap());
        assert!(pages.release(a).is_err(), "released once too often");
        assert!(pages.retain(a).is_err(), "free");
        assert!(pages.retain(9).is_err(), "no such page");
        assert_eq!(pages.n_free(), 2);
        pages.check().unwrap();
        assert_eq!([pages.take(), pages.take(), pages.take()], [Some(0), Some(2), None]);
        pages.check().unwrap();
    }

    #[test]
    fn the_audit_finds_what_is_wrong() {
        let mut pages = Pages::new(3).unwrap();
        pages.free.push(1);
        assert!(pages.check().unwrap_err().to_string().contains("page 1"));
        let mut pages = Pages::new(3).unwrap();
        pages.references[2] = 1;
        assert!(pages.check().unwrap_err().to_string().contains("page 2"));
    }
}

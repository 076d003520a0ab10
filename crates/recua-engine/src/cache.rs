//! The keys and values of sequences: integers above, bytes below.
//!
//! [`Sequences`] assigns pages to sequences and knows nothing of devices. The store holds the bytes on a device and decides nothing.
//! Changes from one to the other are [`Changes`]. Whoever schedules owns the `Sequences`: there is one owner at any time.

mod pages;
mod sequences;
mod store;

pub use pages::Pages;
pub(crate) use sequences::Span;
pub use sequences::{CacheRoom, Changes, Sequences};
pub(crate) use store::{Store, StoreShape};

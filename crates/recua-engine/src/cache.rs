//! The keys and values of sequences: integers above, bytes below.
//!
//! [`Sequences`] decides which pages belong to whom and has never seen a device. The store holds the bytes on a device and decides
//! nothing. Between them go [`Changes`]. Whoever schedules owns the `Sequences`: there is one owner at any time.

mod pages;
mod sequences;
mod store;

pub use pages::Pages;
pub(crate) use sequences::Span;
pub use sequences::{CacheRoom, Changes, Sequences};
pub(crate) use store::{Store, StoreShape};

//! The CPU device: memory, and one `match` over the ops. A submission runs before `submit` returns.

pub(crate) mod isa;
mod memory;
mod pool;

pub use isa::Isa;

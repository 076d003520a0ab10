//! The CPU device: memory, and one `match` over the ops. A submission runs before `submit` returns.

pub(crate) mod isa;
pub(crate) mod math;
mod memory;
mod ops;
mod pool;

pub use isa::Isa;

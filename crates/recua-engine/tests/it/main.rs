//! The integration tests of recua-engine, one binary.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod engine;
mod sampler;
mod scheduler;
mod chat;
mod tokenizer;

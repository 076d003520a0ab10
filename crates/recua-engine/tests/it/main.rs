//! The integration tests of recua-engine, one binary.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod ahead;
mod cache;
mod engine;
mod faulty;
mod files;
mod golden;
mod model;
mod overlap;
mod reference;
mod same_bits;
mod sampler;
mod scheduler;
mod support;

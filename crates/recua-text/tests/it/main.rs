//! The integration tests of recua-text, one binary.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod chat;
mod request;
mod special;
mod tokenizer;

//! The truth about files and block formats: decoders against independent values, encoders against error
//! bounds, the reader against damaged files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod decode;

use std::path::PathBuf;

/// A file of the repository's test data.
fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

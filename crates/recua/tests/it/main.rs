//! What must hold on every device of this build.
//!
//! A device that cannot be opened here is skipped with a message, unless the environment variable RECUA_REQUIRE_DEVICES lists it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod ahead;
mod demo;
mod devices;

/// A file of the repository's test data, whose folder `RECUA_TESTDATA` names where the tests run far from the sources.
fn testdata(file: &str) -> String {
    let beside_sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
    let folder = std::env::var("RECUA_TESTDATA").unwrap_or_else(|_| beside_sources.into());
    format!("{folder}/{file}")
}

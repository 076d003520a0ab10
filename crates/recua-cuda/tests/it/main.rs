//! Tests of the CUDA device, on the first card. Without one each test says so and passes, unless `RECUA_REQUIRE_DEVICES` lists `cuda`. A
//! new test goes into the file of its topic.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod encoding;
mod errors;
mod launches;
mod ops;
mod tensor_core;

use recua_compute::{Device, cases};
use recua_cuda::{Options, open};
use std::sync::OnceLock;

/// The card's device, shared by the tests.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let found = DEVICE.get_or_init(fresh_device);
    found.as_ref()
}

/// A device of one's own: for tests that look at its memory or break it.
fn fresh_device() -> Option<Device> {
    cases::opened_or_skipped("cuda", open(Options::default()))
}

/// Runs a test in a process of its own, because what it does is every test's: the memory, or a card that is lost.
fn alone(name: &str, test: fn()) {
    const ALONE: &str = "RECUA_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! Tests of the GPU device, on whatever adapter there is: a software one is enough. Without any adapter each test says so and passes,
//! unless `RECUA_REQUIRE_DEVICES` lists `wgpu`. A new test goes into the file of its topic.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod encoding;
mod errors;
mod leaks;
mod ops;

use recua_compute::{Device, cases};
use recua_wgpu::{Options, open};
use std::sync::OnceLock;

/// The adapter's device, shared by the tests: opening one takes longer than most tests.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let found = DEVICE.get_or_init(fresh_device);
    found.as_ref()
}

/// A separate device, for tests that look at its memory or break it.
fn fresh_device() -> Option<Device> {
    cases::opened_or_skipped("wgpu", open(Options { allow_software: true, ..Options::default() }))
}

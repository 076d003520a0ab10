//! What must hold on every device of this build.
//!
//! A device that cannot be opened here is skipped with a message, unless the environment variable RECUA_REQUIRE_DEVICES lists it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod ahead;
mod demo;
mod devices;

//! The public face of the crate on the CPU device.

mod cases;

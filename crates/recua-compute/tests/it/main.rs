//! The public interface of the crate, on the CPU device.

mod buffers;
mod cases;
mod encoder;
mod registry;

use recua_compute::cpu::{self, Options};
use recua_compute::{DType, Device, Error};

fn device() -> Device {
    cpu::open(Options { threads: Some(2), isa: None }).expect("the CPU device opens")
}

fn f32s(device: &Device, shape: &[usize]) -> recua_compute::Buffer {
    device.alloc(DType::F32, shape).expect("a small buffer")
}

/// The message of an argument error; the test fails on anything else.
#[track_caller]
fn problem<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Argument { op, problem }) => format!("{op}: {problem}"),
        Err(other) => panic!("an argument error is needed, '{other}' came"),
        Ok(_) => panic!("nothing was refused"),
    }
}

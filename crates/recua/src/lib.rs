//! Batched inference of Llama-family models from GGUF files.
//!
//! ```no_run
//! use recua::{LlamaConfig, LlamaModel};
//!
//! let config = LlamaConfig { batch_size: 2, ..LlamaConfig::default() };
//! let mut model = LlamaModel::from_gguf_with_config("model.gguf", config)?;
//! let logits = model.forward_batch(&[&[1, 2, 3], &[4, 5]])?;
//! assert_eq!(logits[1].shape(), [2, model.params().vocab]);
//! # Ok::<(), recua::Error>(())
//! ```
//!
//! [`open_device`] opens a device by name; [`compute`] and [`gguf`] are the layers below, of use on their own.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub use recua_compute as compute;
pub use recua_engine::*;
pub use recua_gguf as gguf;

pub use recua_compute::Device;

/// The names that [`open_device`] knows in this build.
pub const DEVICE_NAMES: &[&str] = &["auto", "cpu"];

/// Opens a device by name: `cpu`, or `auto` for the fastest one there is. `auto` never picks a software GPU.
///
/// # Errors
/// If the name is not known (the error lists those that are) or the device cannot be opened.
pub fn open_device(name: &str) -> Result<Device> {
    match name {
        "auto" | "cpu" => Ok(compute::cpu::open(compute::cpu::Options::default())?),
        _ => Err(Error::UnknownDevice { name: name.into(), known: DEVICE_NAMES.join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_opened_by_name() {
        assert!(open_device("cpu").is_ok_and(|d| d.info().kind == "cpu"));
        assert!(open_device("auto").is_ok());
        let error = open_device("abacus").map(drop).map_err(|e| e.to_string());
        assert_eq!(error, Err("device \"abacus\" is not known; this build has auto, cpu".into()));
    }
}

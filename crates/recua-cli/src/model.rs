//! From a file to a model on a device.

use recua_gguf::Gguf;

use crate::failure::Result;

/// Fails if recua could not run the file.
pub(crate) fn check(_gguf: &Gguf, _model: &str) -> Result {
    Ok(())
}

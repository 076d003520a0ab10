//! A weight in this device's layout.

use crate::shared::Shared;
use recua_compute::{Arrange, Error, RawMatrix, Result, Weight};

/// Re-lays matrices out, once.
pub(crate) fn upload(_shared: &Shared, parts: &[RawMatrix<'_>], _arrange: Arrange) -> Result<Weight> {
    let ty = parts.first().map_or("no matrix", |part| part.ty.name());
    let problem = format!("there is no layout of {ty} for CUDA yet");
    Err(Error::Argument { op: "upload_weight", problem })
}

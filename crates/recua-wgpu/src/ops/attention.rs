//! `attention`: stub.

use crate::record::Recorder;
use recua_compute::{Attention, Error, Result};

/// See [`Attention`].
pub(crate) fn attention(_op: &Attention, _recorder: &mut Recorder<'_>) -> Result<()> {
    Err(Error::Argument { op: "attention", problem: "not there yet".into() })
}

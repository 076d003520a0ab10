//! The sampling parameters that a file recommends.

use std::ops::RangeInclusive;

use recua_gguf::{Metadata, Value};

use super::{MIN_P, ParamError, REPEAT_PENALTY, TEMPERATURE, TOP_P};
use crate::error::Result;

/// What a file's keys `general.sampling.*` say about sampling, for where the user says nothing. A field is `None`
/// without its key. The names and their meaning are llama.cpp's. Its other keys of this family (`sequence`, `xtc_*`,
/// `mirostat*`) name samplers that do not exist here, and are not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// `temp`.
    pub temperature: Option<f32>,
    /// `top_k`; 0, which keeps all, for a number below 1.
    pub top_k: Option<usize>,
    /// `top_p`.
    pub top_p: Option<f32>,
    /// `min_p`.
    pub min_p: Option<f32>,
    /// `penalty_repeat`.
    pub repeat_penalty: Option<f32>,
    /// `penalty_last_n`; 0, which turns the repeat penalty off, for a number below 1.
    pub repeat_last_n: Option<usize>,
}

impl SamplingDefaults {
    /// Reads the keys of a file.
    ///
    /// # Errors
    ///
    /// If a value is not a number, not finite, or outside the range of its field in
    /// [`SamplingParams`](super::SamplingParams).
    pub fn from_metadata(meta: &Metadata) -> Result<SamplingDefaults> {
        Ok(SamplingDefaults {
            temperature: number(meta, "general.sampling.temp", TEMPERATURE)?,
            top_k: count(meta, "general.sampling.top_k")?,
            top_p: number(meta, "general.sampling.top_p", TOP_P)?,
            min_p: number(meta, "general.sampling.min_p", MIN_P)?,
            repeat_penalty: number(meta, "general.sampling.penalty_repeat", REPEAT_PENALTY)?,
            repeat_last_n: count(meta, "general.sampling.penalty_last_n")?,
        })
    }
}

/// A number within a range. Whole numbers may be stored as integers.
fn number(meta: &Metadata, key: &'static str, range: RangeInclusive<f32>) -> Result<Option<f32>> {
    let value = match meta.get(key).and_then(Value::as_integer) {
        Some(integer) => Some(integer as f32),
        None => meta.f32(key)?,
    };
    if let Some(value) = value {
        ParamError::check(key, value, range)?;
    }
    Ok(value)
}

fn count(meta: &Metadata, key: &str) -> Result<Option<usize>> {
    Ok(meta.i32(key)?.map(|n| usize::try_from(n).unwrap_or(0)))
}

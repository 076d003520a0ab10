//! Values of the type that the caller wants, or an error that names the key.

use super::{Metadata, StringArray, Value};
use crate::error::{Error, Result};

impl Metadata {
    fn scalar<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(v) => Ok(Some(v)),
            None if value.as_integer().is_some() => {
                Err(Error::key(key, format!("is {value} of type {}, expected {wanted}", value.type_name())))
            }
            None => Err(Error::key(key, format!("is of type {}, expected {wanted}", value.type_name()))),
        }
    }

    /// An integer of any type that fits a `u32`; `None` without the key, here and below.
    ///
    /// # Errors
    /// If the value is not an integer, or outside of that range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.scalar(key, "an integer from 0 to 2^32-1", |v| v.as_integer()?.try_into().ok())
    }

    /// An integer of any type that fits a `u64`.
    ///
    /// # Errors
    /// If the value is not an integer, or outside of that range.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.scalar(key, "an integer from 0 to 2^64-1", |v| v.as_integer()?.try_into().ok())
    }

    /// An integer of any type that fits an `i32`.
    ///
    /// # Errors
    /// If the value is not an integer, or outside of that range.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.scalar(key, "an integer from -2^31 to 2^31-1", |v| v.as_integer()?.try_into().ok())
    }

    /// A float; an `f64` is rounded.
    ///
    /// # Errors
    /// If the value is of another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.scalar(key, "f32", Value::as_f32)
    }

    /// A boolean.
    ///
    /// # Errors
    /// If the value is of another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.scalar(key, "bool", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }

    /// A string.
    ///
    /// # Errors
    /// If the value is of another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.scalar(key, "string", |v| if let Value::String(s) = v { Some(&**s) } else { None })
    }

    /// As [`u32`](Self::u32), of a key that must be there.
    ///
    /// # Errors
    /// If the key is absent, the value is not an integer, or outside of that range.
    pub fn require_u32(&self, key: &str) -> Result<u32> {
        required(key, self.u32(key)?)
    }

    /// As [`u64`](Self::u64), of a key that must be there.
    ///
    /// # Errors
    /// If the key is absent, the value is not an integer, or outside of that range.
    pub fn require_u64(&self, key: &str) -> Result<u64> {
        required(key, self.u64(key)?)
    }

    /// As [`f32`](Self::f32), of a key that must be there.
    ///
    /// # Errors
    /// If the key is absent or the value is of another type.
    pub fn require_f32(&self, key: &str) -> Result<f32> {
        required(key, self.f32(key)?)
    }

    /// As [`str`](Self::str), of a key that must be there.
    ///
    /// # Errors
    /// If the key is absent or the value is of another type.
    pub fn require_str(&self, key: &str) -> Result<&str> {
        required(key, self.str(key)?)
    }

    /// An array of strings, read from the file item by item.
    ///
    /// # Errors
    /// If the value is not such an array.
    pub fn strings(&self, key: &str) -> Result<Option<StringArray<'_>>> {
        self.scalar(key, "array of string", |v| if let Value::Array(a) = v { a.strings() } else { None })
    }

    fn array<T>(
        &self,
        key: &str,
        wanted: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(a)) => a.convert(key, wanted, item).map(Some),
            Some(v) => {
                Err(Error::key(key, format!("is of type {}, expected an array of {wanted}", v.type_name())))
            }
        }
    }

    /// An array of floats.
    ///
    /// # Errors
    /// If the value is not such an array.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.array(key, "f32", Value::as_f32)
    }

    /// An array of integers of any type, each of which fits an `i32`.
    ///
    /// # Errors
    /// If the value is not an array of integers, or one of them does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.array(key, "i32", |v| v.as_integer()?.try_into().ok())
    }

    /// An array of integers of any type, each of which fits a `u32`.
    ///
    /// # Errors
    /// If the value is not an array of integers, or one of them does not fit.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.array(key, "u32", |v| v.as_integer()?.try_into().ok())
    }

    /// An array of booleans.
    ///
    /// # Errors
    /// If the value is not such an array.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.array(key, "bool", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::key(key, "is missing from the file's metadata"))
}

//! The stable JSON form of `recua inspect`.

use recua::gguf::{Gguf, TensorInfo, Value};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::json;

use super::{ITEMS_MAX, by_type};

/// `{"model", "version", "files", "file_bytes", "parameters", "metadata", "tensors", "types"}`
#[derive(serde::Serialize)]
pub(super) struct File<'a> {
    model: &'a str,
    version: u32,
    files: usize,
    file_bytes: u64,
    parameters: u64,
    metadata: Keys<'a>,
    tensors: Tensors<'a>,
    types: Vec<TypeSum>,
}

#[derive(serde::Serialize)]
struct TypeSum {
    #[serde(rename = "type")]
    ty: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

impl<'a> File<'a> {
    pub(super) fn of(gguf: &'a Gguf, model: &'a str) -> Self {
        let types = by_type(gguf).into_iter().map(|(ty, sum)| TypeSum {
            ty: ty.name(),
            tensors: sum.n_tensors,
            parameters: sum.n_elements,
            bytes: sum.n_bytes,
        });
        Self {
            model,
            version: gguf.version(),
            files: gguf.n_files(),
            file_bytes: gguf.file_bytes(),
            parameters: super::parameters(gguf),
            metadata: Keys(gguf),
            tensors: Tensors(gguf.tensors()),
            types: types.collect(),
        }
    }
}

/// An object in the file's order: from key to `{"type", "value"}`, for an array to `{"type", "len", "first"}`.
struct Keys<'a>(&'a Gguf);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.metadata().iter().map(|(key, value)| (key, described(value))))
    }
}

fn described(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(array) => {
            let first: Vec<_> = match array.strings() {
                Some(strings) => {
                    strings.iter().take(ITEMS_MAX).map(|s| String::from_utf8_lossy(s).into()).collect()
                }
                None => {
                    (0..array.len().min(ITEMS_MAX)).filter_map(|i| array.get(i)).map(|v| plain(&v)).collect()
                }
            };
            json!({ "type": value.type_name(), "len": array.len(), "first": first })
        }
        scalar => json!({ "type": value.type_name(), "value": plain(scalar) }),
    }
}

fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::U8(v) => (*v).into(),
        Value::I8(v) => (*v).into(),
        Value::U16(v) => (*v).into(),
        Value::I16(v) => (*v).into(),
        Value::U32(v) => (*v).into(),
        Value::I32(v) => (*v).into(),
        Value::U64(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        // The shortest decimal that denotes this f32, not its exact value as f64: 1e-5, not 9.999999747378752e-6.
        Value::F32(v) => v.to_string().parse::<f64>().unwrap_or(f64::NAN).into(),
        Value::F64(v) => (*v).into(),
        Value::Bool(v) => (*v).into(),
        Value::String(v) => (**v).into(),
        Value::Array(_) => serde_json::Value::Null,
    }
}

struct Tensors<'a>(&'a [TensorInfo]);

impl Serialize for Tensors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for tensor in self.0 {
            list.serialize_element(&json!({
                "name": tensor.name,
                "type": tensor.ty.name(),
                "shape": tensor.dims(),
                "bytes": tensor.n_bytes(),
            }))?;
        }
        list.end()
    }
}

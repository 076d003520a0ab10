//! Builds files byte by byte, so that each can be wrong in exactly one place.

/// The pieces of a file; `bytes` puts them together without checking anything.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    /// Written in place of the true count, if given.
    pub(crate) n_tensors: Option<u64>,
    pub(crate) n_keys: Option<u64>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) lines: Vec<Vec<u8>>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    /// A well-formed file: every kind of value, a vector, a matrix of blocks and a tensor of f16.
    pub(crate) fn valid() -> Self {
        let tokens: Vec<String> = (0..40).map(|i| format!("token{i}")).collect();
        let tokens: Vec<&[u8]> = tokens.iter().map(|t| t.as_bytes()).chain([&b"\xff\xfe"[..], b""]).collect();
        Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: vec![
                key_string("general.architecture", "llama"),
                key("a.u8", 0, &[7]),
                key("a.i8", 1, &[0xff]),
                key("a.u16", 2, &7u16.to_le_bytes()),
                key("a.i16", 3, &(-7i16).to_le_bytes()),
                key("a.u32", 4, &7u32.to_le_bytes()),
                key("a.i32", 5, &(-7i32).to_le_bytes()),
                key("a.f32", 6, &0.5f32.to_le_bytes()),
                key("a.bool", 7, &[1]),
                key("a.u64", 10, &(1u64 << 40).to_le_bytes()),
                key("a.i64", 11, &(-1i64).to_le_bytes()),
                key("a.f64", 12, &0.25f64.to_le_bytes()),
                key_array("a.u32s", 4, 3, &[1u32, 2, 3].map(u32::to_le_bytes).concat()),
                key_array("a.f32s", 6, 2, &[1.0f32, 2.0].map(f32::to_le_bytes).concat()),
                key_array("a.bools", 7, 2, &[0, 1]),
                key_array("a.none", 6, 0, &[]),
                key_strings("a.tokens", &tokens),
            ],
            lines: vec![
                line("norm.weight", &[8], 0, 0),
                line("blk.0.attn_q.weight", &[256, 2], 12, 32),
                line("blk.0.ffn.weight", &[3, 2, 2], 1, 32 + 288),
            ],
            alignment: 32,
            data: vec![0x11; 32 + 288 + 24],
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.lines.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        self.keys.iter().chain(&self.lines).for_each(|part| out.extend(part));
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&self.data);
        }
        out
    }
}

pub(crate) fn string(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s].concat()
}

pub(crate) fn key(name: &str, ty: u32, value: &[u8]) -> Vec<u8> {
    [&string(name.as_bytes()), &ty.to_le_bytes()[..], value].concat()
}

pub(crate) fn key_string(name: &str, value: &str) -> Vec<u8> {
    key(name, 8, &string(value.as_bytes()))
}

pub(crate) fn key_array(name: &str, item_type: u32, len: u64, items: &[u8]) -> Vec<u8> {
    key(name, 9, &[&item_type.to_le_bytes(), &len.to_le_bytes()[..], items].concat())
}

pub(crate) fn key_strings(name: &str, items: &[&[u8]]) -> Vec<u8> {
    let bytes: Vec<u8> = items.iter().flat_map(|s| string(s)).collect();
    key_array(name, 8, items.len() as u64, &bytes)
}

pub(crate) fn line(name: &str, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name.as_bytes());
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(ty.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

//! The table of ggml's tensor types: id, name, values and bytes of a block, and whether this crate can decode
//! and encode each. The layouts themselves are in `decode` and `encode`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

macro_rules! formats {
    ($($variant:ident = $id:literal, $values:literal, $bytes:literal, $decode:literal, $encode:literal;)*) => {
        /// A tensor's element or block type, with ggml's ids and names.
        ///
        /// This lists every type that a current GGUF file can contain; [`is_decodable`](Self::is_decodable) and
        /// [`is_encodable`](Self::is_encodable) say which of them this crate can convert to numbers and back.
        #[allow(non_camel_case_types, reason = "ggml's own names, which users type and read")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum GgmlType {
            $(#[doc = concat!("Id ", $id, ": ", $bytes, " bytes for ", $values, " value(s).")] $variant = $id,)*
        }

        impl GgmlType {
            /// Every type, in the order of the ids.
            pub const ALL: &'static [GgmlType] = &[$(GgmlType::$variant),*];

            /// The type with this id in a GGUF file, or `None` if there is none.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// ggml's name, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            const fn row(self) -> (usize, usize, bool, bool) {
                match self {
                    $(Self::$variant => ($values, $bytes, $decode, $encode),)*
                }
            }
        }
    };
}

// name = id, values in a block, bytes of a block, decodable, encodable
formats! {
    F32 = 0, 1, 4, true, true;
    F16 = 1, 1, 2, true, true;
    Q4_0 = 2, 32, 18, true, true;
    Q4_1 = 3, 32, 20, true, true;
    Q5_0 = 6, 32, 22, true, true;
    Q5_1 = 7, 32, 24, true, true;
    Q8_0 = 8, 32, 34, true, true;
    Q8_1 = 9, 32, 36, false, false;
    Q2_K = 10, 256, 84, true, false;
    Q3_K = 11, 256, 110, true, false;
    Q4_K = 12, 256, 144, true, true;
    Q5_K = 13, 256, 176, true, true;
    Q6_K = 14, 256, 210, true, true;
    Q8_K = 15, 256, 292, false, false;
    IQ2_XXS = 16, 256, 66, false, false;
    IQ2_XS = 17, 256, 74, false, false;
    IQ3_XXS = 18, 256, 98, false, false;
    IQ1_S = 19, 256, 50, false, false;
    IQ4_NL = 20, 32, 18, true, false;
    IQ3_S = 21, 256, 110, false, false;
    IQ2_S = 22, 256, 82, false, false;
    IQ4_XS = 23, 256, 136, true, false;
    I8 = 24, 1, 1, false, false;
    I16 = 25, 1, 2, false, false;
    I32 = 26, 1, 4, false, false;
    I64 = 27, 1, 8, false, false;
    F64 = 28, 1, 8, false, false;
    IQ1_M = 29, 256, 56, false, false;
    BF16 = 30, 1, 2, true, true;
    TQ1_0 = 34, 256, 54, false, false;
    TQ2_0 = 35, 256, 66, false, false;
    MXFP4 = 39, 32, 17, true, false;
    NVFP4 = 40, 64, 36, false, false;
    Q1_0 = 41, 128, 18, false, false;
    Q2_0 = 42, 64, 18, false, false;
}

impl GgmlType {
    /// The id in a GGUF file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Values in a block (1 for types without blocks). A row is a whole number of blocks.
    pub const fn block_values(self) -> usize {
        self.row().0
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.row().1
    }

    /// True if [`decode`](crate::decode()) knows the type.
    pub const fn is_decodable(self) -> bool {
        self.row().2
    }

    /// True if [`encode`](crate::encode()) knows the type.
    pub const fn is_encodable(self) -> bool {
        self.row().3
    }

    /// Bytes of a row of `cols` values; `None` if that is not a whole number of blocks or overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_values()) {
            return None;
        }
        (cols / self.block_values()).checked_mul(self.block_bytes())
    }

    /// True if a block holds several values that share a scale; false for float and integer types.
    pub const fn is_quantized(self) -> bool {
        self.block_values() > 1
    }
}

/// The name of a type that ggml has withdrawn but that older files may contain, for the error message.
pub(crate) fn withdrawn_name(id: u32) -> Option<&'static str> {
    Some(match id {
        4 => "Q4_2",
        5 => "Q4_3",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        _ => return None,
    })
}

/// The names of the types for which `keep` holds, separated by spaces, for error messages.
pub(crate) fn names_where(keep: impl Fn(GgmlType) -> bool) -> String {
    let names: Vec<_> = GgmlType::ALL.iter().filter(|ty| keep(**ty)).map(|ty| ty.name()).collect();
    names.join(" ")
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for GgmlType {
    type Err = Error;

    /// Accepts ggml's name in any case.
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|ty| ty.name().eq_ignore_ascii_case(s)).ok_or_else(|| {
            Error::other(format!(
                "unknown tensor type {:?}; one of: {}",
                crate::error::shorten(s),
                names_where(|_| true)
            ))
        })
    }
}

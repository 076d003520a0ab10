//! The vocabulary: the type of every token, how it is written in the file, and the text it stands for.

use super::error::{TOKEN_BYTES_MAX, TokenizerError};

/// How SentencePiece writes a space, U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// The type of a token, from `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// The file does not say.
    Undefined,
    /// Text.
    Normal,
    /// Stands for text that the vocabulary lacks.
    Unknown,
    /// Structure: turns, beginnings, ends. Plain text never encodes to it.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// A gap in the numbering.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

impl TokenType {
    fn new(value: i32) -> Option<TokenType> {
        Some(match value {
            0 => TokenType::Undefined,
            1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => return None,
        })
    }
}

/// How pieces are written in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// SentencePiece: U+2581 for a space, `<0xNN>` for a byte.
    SentencePiece,
    /// GPT-2: every byte is one printable character.
    ByteLevel,
}

pub(super) struct Vocab {
    pieces: Slices,
    texts: Slices,
    kinds: Vec<TokenType>,
}

/// Many byte strings in one allocation.
#[derive(Default)]
struct Slices {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Slices {
    fn push(&mut self, slice: &[u8]) {
        self.bytes.extend_from_slice(slice);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }
}

impl Vocab {
    pub(super) fn new<'a>(
        pieces: impl ExactSizeIterator<Item = &'a [u8]>,
        types: Option<&[i32]>,
        spelling: Spelling,
    ) -> Result<Vocab, TokenizerError> {
        let n_tokens = pieces.len();
        if n_tokens > 1 << 31 {
            return Err(TokenizerError::TooMany(n_tokens));
        }
        let mut vocab = Vocab {
            pieces: Slices::default(),
            texts: Slices::default(),
            kinds: Vec::with_capacity(n_tokens),
        };
        for (token, piece) in pieces.enumerate() {
            let value = types.map_or(Some(1), |types| types.get(token).copied()).unwrap_or(1);
            let mut kind = TokenType::new(value).ok_or(TokenizerError::TokenType { token, value })?;
            if piece.len() > TOKEN_BYTES_MAX {
                return Err(TokenizerError::TokenTooLong { token, len: piece.len() });
            }
            // A file without types spells bytes as others do.
            if types.is_none() && spelling == Spelling::SentencePiece && byte_of(piece).is_some() {
                kind = TokenType::Byte;
            }
            // Some converters do not mark the tokens that end a turn; a text must not be able to write them.
            if kind != TokenType::Control && super::ends::is_always_control(piece) {
                kind = TokenType::Control;
            }
            vocab.pieces.push(piece);
            match (kind, spelling) {
                (TokenType::Normal, Spelling::SentencePiece) => {
                    vocab.texts.push(&unescape_spaces(piece));
                }
                (TokenType::Normal, Spelling::ByteLevel) => {
                    vocab.texts.push(raw_bytes(piece).as_deref().unwrap_or(piece));
                }
                (TokenType::UserDefined, _) => vocab.texts.push(piece),
                (TokenType::Byte, _) => match byte_of(piece) {
                    Some(byte) => vocab.texts.push(&[byte]),
                    None => vocab.texts.push(&[]),
                },
                (TokenType::Control | TokenType::Unknown | TokenType::Unused | TokenType::Undefined, _) => {
                    vocab.texts.push(&[]);
                }
            }
            vocab.kinds.push(kind);
        }
        Ok(vocab)
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The type of a token of this vocabulary.
    pub(super) fn kind(&self, token: u32) -> TokenType {
        self.kinds[token as usize]
    }

    /// A token as the file writes it.
    pub(super) fn piece(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize)
    }

    /// The bytes a token stands for; none for control tokens.
    pub(super) fn text(&self, token: u32) -> &[u8] {
        self.texts.get(token as usize)
    }

    pub(super) fn ids(&self) -> std::ops::Range<u32> {
        0..self.kinds.len() as u32
    }
}

fn unescape_spaces(piece: &[u8]) -> Vec<u8> {
    let space = SPACE.as_bytes();
    let mut text = Vec::with_capacity(piece.len());
    let mut rest = piece;
    while let Some(&first) = rest.first() {
        if let Some(after) = rest.strip_prefix(space) {
            text.push(b' ');
            rest = after;
        } else {
            text.push(first);
            rest = &rest[1..];
        }
    }
    text
}

/// The byte of a piece `<0xNN>`.
fn byte_of(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes that a byte-level piece spells; none if it has a character outside that alphabet.
pub(super) fn raw_bytes(piece: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(piece).ok()?.chars().map(byte_of_char).collect()
}

/// GPT-2's alphabet: the printable Latin-1 characters stand for themselves, and the other 68 bytes, in order, for
/// U+0100 and up.
fn byte_of_char(ch: char) -> Option<u8> {
    match u32::from(ch) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_complete() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of_char).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char('ł'), Some(0xA0));
    }

    #[test]
    fn byte_pieces() {
        assert_eq!(byte_of(b"<0x0A>"), Some(10));
        assert_eq!(byte_of(b"<0xfF>"), Some(255));
        for piece in [&b"<0x>"[..], b"<0x123>", b"0x12", b"<0xZZ>"] {
            assert_eq!(byte_of(piece), None);
        }
    }
}

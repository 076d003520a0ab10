//! The tokens that end a generation: those that the metadata names, and those known by their text, because many files name only
//! one of the several that their chat format uses.

/// Texts that end a turn or a document, whatever type the file gives them.
const ALWAYS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|EOT|>",
    "<EOT>",
    "< EOT >",
    "_< EOT >",
    "<｜end▁of▁sentence｜>",
];

/// Texts that end a document only if the file marks them as special: some vocabularies contain them as ordinary text (HTML).
const IF_SPECIAL: &[&str] = &["</s>", "<eos>", "[EOS]", "[EOT]"];

/// Texts that mark the end of a turn, in the order in which they are searched for if the file names none.
pub(super) const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|EOT|>",
    "<EOT>",
    "< EOT >",
    "_< EOT >",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
];

/// Whether a piece is a control token even if the file calls it text.
pub(super) fn is_always_control(piece: &[u8]) -> bool {
    ALWAYS.iter().any(|end| end.as_bytes() == piece)
}

/// Whether a special token of this text ends a generation.
pub(super) fn is_end_text(piece: &[u8]) -> bool {
    is_always_control(piece) || IF_SPECIAL.iter().any(|end| end.as_bytes() == piece)
}

/// Whether a user-defined token looks like the mark of a turn. Plain text matches user-defined tokens, but the text
/// of a chat message must not be able to end its turn with one.
pub(super) fn looks_like_control(piece: &[u8]) -> bool {
    let between = |open: &str, close: &str| {
        piece.len() > open.len() + close.len()
            && piece.starts_with(open.as_bytes())
            && piece.ends_with(close.as_bytes())
    };
    between("<|", "|>")
        || between("<｜", "｜>")
        || between("[", "INST]")
        || between("<<", "SYS>>")
        || between("<", "_of_turn>")
        || is_end_text(piece)
}

//! The errors of vocabularies and of texts that cannot be encoded.

/// The longest token that a vocabulary may have, in bytes; the longest known has 512.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Why a vocabulary was refused, or a text could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file's metadata could not be read.
    #[error(transparent)]
    Metadata(#[from] recua_gguf::Error),
    /// A required key is missing.
    #[error("the file has no {key}, which a \"{model}\" vocabulary needs")]
    Missing {
        /// The absent metadata key.
        key: &'static str,
        /// The file's `tokenizer.ggml.model`.
        model: String,
    },
    /// A tokenizer of another kind.
    #[error(
        "tokenizer.ggml.model \"{0}\" is not supported; known are \"llama\" (SentencePiece) and \"gpt2\" (byte-level BPE)"
    )]
    UnknownModel(String),
    /// An unknown pre-tokenizer. Guessing another would change the tokens that the model sees.
    #[error("tokenizer.ggml.pre \"{name}\" is not known; known are {known}")]
    UnknownPre {
        /// The name in the file.
        name: String,
        /// Every name that works.
        known: String,
    },
    /// An array that must have one entry for each token has another length.
    #[error("{key} has {got} entries for {n_tokens} tokens")]
    LengthMismatch {
        /// The key of the array.
        key: &'static str,
        /// Its length.
        got: usize,
        /// The length of `tokenizer.ggml.tokens`.
        n_tokens: usize,
    },
    /// A token id outside the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {n_tokens} tokens")]
    IdOutOfRange {
        /// The key that holds the id.
        key: &'static str,
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        n_tokens: usize,
    },
    /// A token type the format does not define.
    #[error("tokenizer.ggml.token_type of token {token} is {value}; 0 to 6 are defined")]
    TokenType {
        /// The token.
        token: usize,
        /// Its type.
        value: i32,
    },
    /// A token so long that searching for it would slow down every text.
    #[error("token {token} has {len} bytes; at most {max} are accepted", max = TOKEN_BYTES_MAX)]
    TokenTooLong {
        /// The token.
        token: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// A merge rule that is not two pieces with a space between them.
    #[error("tokenizer.ggml.merges entry {index} is not two pieces with a space between them")]
    Merge {
        /// Its index.
        index: usize,
    },
    /// More tokens or merges than there are ids.
    #[error("the vocabulary has {0} tokens and merges; at most 2^31 are accepted")]
    TooMany(usize),
    /// The special tokens could not be indexed.
    #[error("the special tokens of the vocabulary cannot be indexed: {0}")]
    Index(String),
    /// A text of 4 GiB or more.
    #[error("the text has {0} bytes; at most {max} are accepted", max = u32::MAX)]
    TextTooLong(usize),
}

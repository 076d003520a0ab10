//! The part of recua that knows tokens, chats, models and requests, and no device in particular.

pub mod tokenizer;

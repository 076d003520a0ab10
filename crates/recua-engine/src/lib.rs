//! The part of recua that knows tokens, chats, models and requests, and no device in particular.

pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod stop;
pub mod tokenizer;

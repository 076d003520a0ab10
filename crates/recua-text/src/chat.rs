//! Turns conversations into prompts, by the template in the file or, if there is none, by that of its family.
//!
//! A template is a program from an untrusted file; `recua-template` runs it within bounds of time and memory.
//!
//! The texts of messages are untrusted in another way: `<|im_end|>` in a message must remain ten characters and not
//! end the turn. [`ChatTemplate::encode`] sees to that; `guard` says how.

mod error;
mod fallback;
mod guard;
mod message;

use std::time::SystemTime;

use recua_gguf::Metadata;
use recua_template::{Input, Template};

use crate::tokenizer::Tokenizer;
use guard::Guard;

pub use error::ChatError;
pub use message::Message;

/// A chat template with the vocabulary's special tokens: turns messages into the model's prompt.
pub struct ChatTemplate {
    source: String,
    template: Template,
    guard: Guard,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of a file, or that of its family.
    ///
    /// # Errors
    ///
    /// If the file's template cannot be parsed, or there is none and the family is not known.
    pub fn from_metadata(meta: &Metadata, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        let source = match meta.str("tokenizer.chat_template")? {
            Some(source) => source,
            None => fallback::source(meta, tokenizer)?.ok_or_else(|| ChatError::NoTemplate {
                architecture: meta.str("general.architecture").ok().flatten().unwrap_or("unknown").to_owned(),
            })?,
        };
        ChatTemplate::new(source, tokenizer)
    }

    /// A template of the caller's.
    ///
    /// # Errors
    ///
    /// If it cannot be parsed.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        let piece = |token: Option<u32>| {
            let piece = token.and_then(|token| tokenizer.token_piece(token)).unwrap_or_default();
            String::from_utf8_lossy(piece).into_owned()
        };
        let template = Template::parse(source)?;
        let guard = Guard::new(tokenizer, template.literals())?;
        Ok(ChatTemplate {
            source: source.to_owned(),
            template,
            guard,
            bos: piece(tokenizer.bos()),
            eos: piece(tokenizer.eos()),
        })
    }

    /// The prompt for a conversation as text. `add_generation_prompt` opens the assistant's turn; `now` is the time
    /// that the template may write into the prompt. Do not encode this with control tokens switched on if anybody
    /// else wrote the messages: use [`ChatTemplate::encode`].
    ///
    /// # Errors
    ///
    /// If the template refuses the messages, fails, or exceeds its limits.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, ChatError> {
        self.render_guarded(messages, add_generation_prompt, now).map(|(text, _)| text)
    }

    /// The prompt for a conversation, with the assistant's turn opened: control tokens where the template wrote them
    /// and nowhere else, and one BOS in front if either the template or the vocabulary asks for it.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], and if the text cannot be encoded.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        now: SystemTime,
    ) -> Result<Vec<u32>, ChatError> {
        let (text, foreign) = self.render_guarded(messages, true, now)?;
        let mut tokens = Vec::new();
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
            // Some templates begin with a line feed.
            let start = text.len() - text.trim_start().len();
            let written = !self.bos.is_empty() && text[start..].starts_with(&self.bos);
            if !written || foreign.touches(&text, &(start..start + self.bos.len())) {
                tokens.push(bos);
            }
        }
        tokenizer.encode_marked(&text, |range| foreign.touches(&text, range), &mut tokens)?;
        Ok(tokens)
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn render_guarded(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<(String, guard::Foreign), ChatError> {
        let masks = self.guard.masks(&self.source, messages);
        let masked: Vec<Message> = messages
            .iter()
            .map(|message| Message { role: masks.hide(&message.role), content: masks.hide(&message.content) })
            .collect();
        let variables = [
            ("messages", Input::List(masked.iter().map(input).collect())),
            ("add_generation_prompt", Input::Bool(add_generation_prompt)),
            ("bos_token", Input::Str(&self.bos)),
            ("eos_token", Input::Str(&self.eos)),
            // As transformers has it: there, and none.
            ("tools", Input::None),
            ("documents", Input::None),
        ];
        match self.template.render(&variables, now) {
            Ok(text) => Ok(masks.reveal(&text)),
            Err(recua_template::Error::Raised(message)) => Err(ChatError::Refused(masks.reveal(&message).0)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A message as templates see it.
fn input(message: &Message) -> Input<'_> {
    Input::Map(vec![("role", Input::Str(&message.role)), ("content", Input::Str(&message.content))])
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

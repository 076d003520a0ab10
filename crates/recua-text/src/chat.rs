//! Turns conversations into prompts, by the template in the file or, if there is none, by that of its family.
//!
//! A template is a program from an untrusted file; `recua-template` runs it within bounds of time and memory.
//!
//! What a [`Chat`] says is untrusted in another way: `<|im_end|>` in a message must remain ten characters and not end
//! the turn. [`ChatTemplate::encode`] sees to that, for every string in messages, tools, documents and variables; `guard`
//! says how.

mod convert;
mod error;
mod fallback;
mod guard;
mod request;

use recua_gguf::Metadata;
use recua_template::{Input, Template};
use serde_json::Value;

use crate::tokenizer::Tokenizer;
use guard::{Foreign, Guard};

pub use error::ChatError;
pub use recua_template::LocalTime;
pub use request::{Chat, Ending, Message};

/// The key of a file's template; one with a name has `.` and the name after it.
const KEY: &str = "tokenizer.chat_template";
/// The name of the template for chats with tools, as in transformers.
const TOOL_USE: &str = "tool_use";

/// The special tokens that templates see as variables, and the keys of their ids.
const SPECIAL: [(&str, &str); 7] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    // The key is misspelt in the format.
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// The chat template of a file with the vocabulary's special tokens: turns a conversation into the model's prompt.
pub struct ChatTemplate {
    main: Program,
    // For chats with tools, if the file has one of its own for them.
    tool_use: Option<Program>,
    // The texts of special tokens by the names of their variables.
    special: Vec<(&'static str, String)>,
}

/// A template that can run.
struct Program {
    source: String,
    template: Template,
    guard: Guard,
}

impl Program {
    fn new(source: &str, tokenizer: &Tokenizer) -> Result<Program, ChatError> {
        let template = Template::parse(source)?;
        let guard = Guard::new(tokenizer, template.literals())?;
        Ok(Program { source: source.to_owned(), template, guard })
    }
}

impl ChatTemplate {
    /// The template of a file, or that of its family if the file has none, an empty one, or no more than the name
    /// `chatml`. If the file has a template named `tool_use`, chats with tools use that.
    ///
    /// # Errors
    ///
    /// If the file's template cannot be parsed, or there is none and the family is not known.
    pub fn from_metadata(meta: &Metadata, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        let source = match meta.str(KEY)?.filter(|source| !source.trim().is_empty()) {
            Some(source) => fallback::named(source.trim()).unwrap_or(source),
            None => fallback::source(meta, tokenizer)?.ok_or_else(|| ChatError::NoTemplate {
                architecture: meta.str("general.architecture").ok().flatten().unwrap_or("unknown").to_owned(),
            })?,
        };
        let mut template = ChatTemplate::new(source, meta, tokenizer)?;
        if let Some(source) = meta.str(&format!("{KEY}.{TOOL_USE}"))? {
            template.tool_use = Some(Program::new(source, tokenizer)?);
        }
        Ok(template)
    }

    /// The template that a file has under a name (`tokenizer.chat_template.NAME`), or `default`; or else the known one of
    /// that name, `chatml`.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoSuchTemplate`], which lists those there are, or if it cannot be parsed.
    pub fn named(name: &str, meta: &Metadata, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        if name == "default" {
            return ChatTemplate::from_metadata(meta, tokenizer);
        }
        let source = meta.str(&format!("{KEY}.{name}"))?.or_else(|| fallback::named(name));
        let known = || ChatTemplate::names(meta).collect::<Vec<_>>().join(", ");
        let source =
            source.ok_or_else(|| ChatError::NoSuchTemplate { name: name.to_owned(), known: known() })?;
        ChatTemplate::new(source, meta, tokenizer)
    }

    /// The names by which [`ChatTemplate::named`] finds the templates of a file.
    pub fn names(meta: &Metadata) -> impl Iterator<Item = &str> {
        let own = meta.iter().filter_map(|(key, _)| match key.strip_prefix(KEY)? {
            "" => Some("default"),
            name => name.strip_prefix('.'),
        });
        own.chain(["chatml"])
    }

    /// A template of the caller's, with the special tokens of a file.
    ///
    /// # Errors
    ///
    /// If it cannot be parsed.
    pub fn new(source: &str, meta: &Metadata, tokenizer: &Tokenizer) -> Result<ChatTemplate, ChatError> {
        let piece = |token: u32| {
            tokenizer.token_piece(token).map(|piece| String::from_utf8_lossy(piece).into_owned())
        };
        let special = SPECIAL.into_iter().filter_map(|(name, key)| {
            let id = match name {
                "bos_token" => tokenizer.bos(),
                "eos_token" => tokenizer.eos(),
                _ => meta
                    .get(key)
                    .and_then(recua_gguf::Value::as_integer)
                    .and_then(|id| u32::try_from(id).ok()),
            };
            match id.and_then(piece) {
                Some(piece) => Some((name, piece)),
                // Templates add these two to other texts without asking.
                None if matches!(name, "bos_token" | "eos_token") => Some((name, String::new())),
                None => None,
            }
        });
        let special = special.collect();
        Ok(ChatTemplate { main: Program::new(source, tokenizer)?, tool_use: None, special })
    }

    /// The prompt for a conversation as text. `now` is the time that the template may write into the prompt. Do not
    /// encode this with control tokens switched on if anybody else wrote the conversation: use [`ChatTemplate::encode`].
    ///
    /// # Errors
    ///
    /// If the template refuses the conversation, fails, or exceeds its limits; if a variable has the name of another;
    /// if the last message cannot be continued.
    pub fn render(&self, chat: &Chat, now: impl Into<LocalTime>) -> Result<String, ChatError> {
        self.render_guarded(chat, now.into()).map(|(text, _)| text)
    }

    /// The prompt for a conversation as tokens: control tokens where the template wrote them and nowhere else, and one
    /// BOS in front if either the template or the vocabulary asks for it.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::render`], and if the text cannot be encoded.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        chat: &Chat,
        now: impl Into<LocalTime>,
    ) -> Result<Vec<u32>, ChatError> {
        self.render_and_encode(tokenizer, chat, now).map(|(_, tokens)| tokens)
    }

    /// The prompt both as text and as tokens. The tokens may begin with a BOS that the text lacks.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::encode`].
    pub fn render_and_encode(
        &self,
        tokenizer: &Tokenizer,
        chat: &Chat,
        now: impl Into<LocalTime>,
    ) -> Result<(String, Vec<u32>), ChatError> {
        let (text, foreign) = self.render_guarded(chat, now.into())?;
        let mut tokens = Vec::new();
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
            let piece =
                self.special.iter().find(|(name, _)| *name == "bos_token").map_or("", |(_, piece)| piece);
            // Some templates begin with a line feed.
            let start = text.len() - text.trim_start().len();
            let written = !piece.is_empty() && text[start..].starts_with(piece);
            if !written || foreign.touches(&text, &(start..start + piece.len())) {
                tokens.push(bos);
            }
        }
        tokenizer.encode_marked(&text, |range| foreign.touches(&text, range), &mut tokens)?;
        Ok((text, tokens))
    }

    /// The template's source; that for chats without tools, if there are two.
    pub fn source(&self) -> &str {
        &self.main.source
    }

    fn render_guarded(&self, chat: &Chat, now: LocalTime) -> Result<(String, Foreign), ChatError> {
        let program = match &self.tool_use {
            Some(program) if chat.tools.is_some() => program,
            _ => &self.main,
        };
        let list = |list: &Option<Vec<Value>>| list.clone().map_or(Value::Null, Value::Array);
        let messages =
            chat.messages.iter().map(|message| Value::Object(request::normalized(message))).collect();
        let mut values = vec![
            ("messages", Value::Array(messages)),
            // As transformers has it: there, and none.
            ("tools", list(&chat.tools)),
            ("documents", list(&chat.documents)),
        ];
        for (name, value) in &chat.variables {
            if values.iter().any(|(known, _)| known == name) || name == "add_generation_prompt" {
                return Err(ChatError::Request(format!(
                    "{name} is no free variable; it is part of a chat itself"
                )));
            }
            values.push((name, value.clone()));
        }
        values.iter().try_for_each(|(_, value)| convert::check_depth(value))?;

        let masks = program.guard.masks(&program.source, values.iter().map(|(_, value)| value));
        for (_, value) in &mut values {
            *value = convert::with_strings(value, &|text| masks.hide(text), &|name| masks.hide_name(name));
        }
        let mut continued = None;
        if chat.ending == Ending::ContinueLastMessage {
            let last = values[0].1.as_array_mut().and_then(|messages| messages.last_mut());
            continued = Some(open_end(last, masks.mark)?);
        }
        let mut variables: Vec<(&str, Input<'_>)> =
            values.iter().map(|(name, value)| (*name, convert::input(value))).collect();
        let opens_turn = chat.ending == Ending::GenerationPrompt;
        variables.push(("add_generation_prompt", Input::Bool(opens_turn)));
        for (name, piece) in &self.special {
            if !chat.variables.contains_key(*name) {
                variables.push((name, Input::Str(piece)));
            }
        }
        match program.template.render(&variables, now) {
            Ok(text) => match continued {
                Some(last) => cut(&text, &last, masks.mark).map(|text| masks.reveal(text)),
                None => Ok(masks.reveal(&text)),
            },
            Err(recua_template::Error::Raised(message)) => Err(ChatError::Refused(masks.reveal(&message).0)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts a mark behind the text of the last message, and gives that text. The space behind the mark tells whether the
/// template takes white space off the end.
fn open_end(last: Option<&mut Value>, mark: char) -> Result<String, ChatError> {
    let fault = |what: &str| ChatError::CannotContinue(what.to_owned());
    let last = last.ok_or_else(|| fault("there is none"))?;
    let text = match last.get_mut("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts.iter_mut().rev().filter_map(|part| part.get_mut("text"));
            let mut texts =
                texts.filter_map(|text| if let Value::String(text) = text { Some(text) } else { None });
            texts.next().ok_or_else(|| fault("no part of its content is a text"))?
        }
        _ => return Err(fault("it has no content")),
    };
    let original = text.clone();
    text.push(mark);
    text.push(' ');
    Ok(original)
}

/// The prompt up to the mark.
fn cut<'p>(prompt: &'p str, last: &str, mark: char) -> Result<&'p str, ChatError> {
    let at = prompt.rfind(mark).filter(|_| prompt.contains(last.trim()));
    let at = at.ok_or_else(|| {
        ChatError::CannotContinue("the template does not write its text as it is".to_owned())
    })?;
    let keeps_space = prompt[at + mark.len_utf8()..].starts_with(' ');
    Ok(if keeps_space { &prompt[..at] } else { prompt[..at].trim_end() })
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.main.source).finish_non_exhaustive()
    }
}

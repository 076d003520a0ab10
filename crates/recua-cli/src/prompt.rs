//! Turns messages into tokens and flags into sampling parameters, for `run` and `chat`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use recua::SamplingParams;
use recua::chat::{ChatError, ChatTemplate, Message};
use recua::stop::StopMatcher;
use recua::tokenizer::Tokenizer;

use crate::args::SamplingArgs;
use crate::failure::{Failure, OrFail, Result};
use crate::model::ModelFile;
use crate::output::note;
use crate::source;

/// llama.cpp's default.
const TEMPERATURE: f32 = 0.8;

/// How messages become a prompt.
pub(crate) enum Form {
    /// Through the file's template.
    Chat(Box<ChatTemplate>),
    /// As they are. Control tokens in them are tokens if the user asked for raw prompts, otherwise plain text.
    Raw { special: bool },
}

impl Form {
    /// The form for a file: raw if `raw` or if the file has no template.
    pub(crate) fn of(file: &ModelFile, tokenizer: &Tokenizer, raw: bool) -> Result<Self> {
        if raw {
            return Ok(Form::Raw { special: true });
        }
        match ChatTemplate::from_metadata(file.gguf.metadata(), tokenizer) {
            Ok(template) => Ok(Form::Chat(Box::new(template))),
            Err(ChatError::NoTemplate { .. }) => Ok(Form::Raw { special: false }),
            Err(e) => Err(Failure::user(format!("{}: {e}; use --raw to do without the template", file.name))),
        }
    }

    /// Tells the user if prompts are raw although that was not asked for. Call it after all checks, because a mistake
    /// is reported in one line and nothing else.
    pub(crate) fn note_if_raw(&self) {
        if matches!(self, Form::Raw { special: false }) {
            note!("note: the file has no chat template; prompts are used as they are");
        }
    }

    /// The tokens of a conversation, up to where the model's next turn begins.
    pub(crate) fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        match self {
            Form::Chat(template) => template.encode(tokenizer, messages, SystemTime::now()).or_user(),
            Form::Raw { special } => {
                let text: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
                tokenizer.encode(&text.join("\n"), tokenizer.adds_bos(), *special).or_user()
            }
        }
    }
}

/// The sampling parameters that the flags give, validated.
pub(crate) fn sampling(args: &SamplingArgs, model: &str) -> Result<SamplingParams> {
    let default = if source::is_demo(model) { 0.0 } else { TEMPERATURE };
    let params = SamplingParams {
        temperature: args.temp.unwrap_or(default),
        top_k: args.top_k as usize,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        frequency_penalty: args.frequency_penalty,
        presence_penalty: args.presence_penalty,
        seed: args.fixed_seed().unwrap_or_else(random_seed),
        ..SamplingParams::default()
    };
    params.validate().map_err(|e| {
        let (flag, value, min, max) = (flag(e.field), e.value, e.min, e.max);
        Failure::user(format!("{flag} is {value}; it must be a number from {min} to {max}"))
    })?;
    // Checked here, so that a mistake is reported before a device is opened.
    StopMatcher::new(&args.stop).or_user()?;
    Ok(params)
}

/// The flag that gives a sampling parameter.
fn flag(field: &str) -> String {
    match field {
        "temperature" => "--temp".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    }
}

/// A seed that differs from run to run: the standard library seeds its hash keys from the operating system.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

//! From what a user says to tokens, and from flags to sampling parameters. `run` and `chat` share it.

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
    /// As they are; control tokens in them count if the user asked for raw prompts, and are text if nobody did.
    Raw { special: bool },
}

impl Form {
    /// The form for a file; raw if it has no template.
    pub(crate) fn of(file: &ModelFile, tokenizer: &Tokenizer, raw: bool) -> Result<Self> {
        if raw {
            return Ok(Form::Raw { special: true });
        }
        match ChatTemplate::from_metadata(file.gguf.metadata(), tokenizer) {
            Ok(template) => Ok(Form::Chat(Box::new(template))),
            Err(ChatError::NoTemplate { .. }) => Ok(Form::Raw { special: false }),
            Err(e) => Err(Failure::user(format!("{}: {e}; --raw does without the template", file.name))),
        }
    }

    /// Says that prompts are raw though nobody asked for that. Not before everything else is known to be right: a
    /// mistake gets one sentence.
    pub(crate) fn note_if_raw(&self) {
        if matches!(self, Form::Raw { special: false }) {
            note!("note: the file has no chat template; prompts are taken as they are");
        }
    }

    /// The tokens of a conversation whose next turn is the model's.
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

/// The parameters that flags ask for, checked.
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
        seed: args.seed.unwrap_or_else(random_seed),
        ..SamplingParams::default()
    };
    params.validate().or_user()?;
    // Looked at before a device is opened, as everything that was typed.
    StopMatcher::new(&args.stop).or_user()?;
    Ok(params)
}

/// A seed that differs from run to run: the standard library draws its hash keys from the system.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

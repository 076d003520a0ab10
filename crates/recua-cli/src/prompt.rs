//! Turns messages into tokens and flags into sampling parameters, for `run` and `chat`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use recua::chat::{Chat, ChatError, ChatTemplate, LocalTime, Message};
use recua::stop::StopMatcher;
use recua::tokenizer::Tokenizer;
use recua::{SamplingDefaults, SamplingParams};

use crate::args::SamplingArgs;
use crate::failure::{Failure, OrFail, Result};
use crate::model::{ModelFile, failure};
use crate::output::{note, printable};
use crate::source;

/// llama.cpp's defaults.
const TEMPERATURE: f32 = 0.8;
const TOP_K: usize = 40;
const TOP_P: f32 = 0.95;
const MIN_P: f32 = 0.05;

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
    pub(crate) fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Prompt> {
        let chat = Chat::new(messages);
        match self {
            Form::Chat(template) => {
                let (text, tokens) = template.render_and_encode(tokenizer, &chat, local_time()).or_user()?;
                Ok(Prompt { text, tokens })
            }
            Form::Raw { special } => {
                let texts: Vec<_> = chat.messages.iter().filter_map(Message::text).collect();
                let text = texts.join("\n");
                let tokens = tokenizer.encode(&text, tokenizer.adds_bos(), *special).or_user()?;
                Ok(Prompt { text, tokens })
            }
        }
    }
}

/// A prompt as the model sees it.
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
}

impl Prompt {
    /// Shows it on stderr: text and ids, a line each.
    pub(crate) fn show(&self) {
        let ids: Vec<String> = self.tokens.iter().map(u32::to_string).collect();
        note!("prompt: {}", printable(&self.text));
        note!("tokens: {}", ids.join(" "));
    }
}

/// The time on the clocks here, for templates that write the date.
pub(crate) fn local_time() -> LocalTime {
    LocalTime::new(SystemTime::now(), jiff::ZonedDateTime::now().offset().seconds())
}

/// The sampling parameters where no flag is given: those that the file recommends, else llama.cpp's.
pub(crate) fn defaults(file: &ModelFile) -> Result<SamplingParams> {
    let default = SamplingParams::default();
    let temperature = if source::is_demo(&file.name) { 0.0 } else { TEMPERATURE };
    let own = SamplingDefaults::from_metadata(file.gguf.metadata()).map_err(|e| failure(e, &file.name))?;
    Ok(SamplingParams {
        temperature: own.temperature.unwrap_or(temperature),
        top_k: own.top_k.unwrap_or(TOP_K),
        top_p: own.top_p.unwrap_or(TOP_P),
        min_p: own.min_p.unwrap_or(MIN_P),
        repeat_penalty: own.repeat_penalty.unwrap_or(default.repeat_penalty),
        repeat_last_n: own.repeat_last_n.unwrap_or(default.repeat_last_n),
        ..default
    })
}

/// The sampling parameters that the flags give, validated.
pub(crate) fn sampling(args: &SamplingArgs, defaults: &SamplingParams) -> Result<SamplingParams> {
    let params = SamplingParams {
        temperature: args.temp.unwrap_or(defaults.temperature),
        top_k: args.top_k.map_or(defaults.top_k, |k| k as usize),
        top_p: args.top_p.unwrap_or(defaults.top_p),
        min_p: args.min_p.unwrap_or(defaults.min_p),
        repeat_penalty: args.repeat_penalty.unwrap_or(defaults.repeat_penalty),
        repeat_last_n: defaults.repeat_last_n,
        frequency_penalty: args.frequency_penalty,
        presence_penalty: args.presence_penalty,
        seed: args.fixed_seed().unwrap_or_else(random_seed),
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

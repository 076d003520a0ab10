//! Text in, text out: [`TextModel`] puts together what an answer needs.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use recua_compute::Device;
use recua_gguf::Gguf;
use recua_text::chat::{Chat, ChatError, ChatTemplate, Message};
use recua_text::tokenizer::{Tokenizer, TokenizerError};

use crate::{Engine, Error, Event, LlamaConfig, LlamaModel, Request, RequestError, open_device};

/// A model that answers texts: file, device, tokenizer, chat template and engine.
///
/// It is built from public parts, for programs that do not need more; [`Engine`] gives control over every step.
pub struct TextModel {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    // `None` if the file has none that is known.
    template: Option<ChatTemplate>,
}

/// Why a text was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file, the device or the model.
    #[error(transparent)]
    Model(#[from] Error),
    /// The file's vocabulary, or a text that it cannot express.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The file's chat template, or messages that it refuses.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A request that cannot be answered.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<recua_gguf::Error> for TextError {
    fn from(e: recua_gguf::Error) -> Self {
        Self::Model(e.into())
    }
}

impl TextModel {
    /// Opens a file on the fastest device of this machine, with the default configuration: one sequence at a time, and a context of
    /// at most 4096 tokens.
    ///
    /// # Errors
    /// As [`load`](Self::load), or if the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<TextModel, TextError> {
        TextModel::load(&Gguf::open(path)?, open_device("auto")?, LlamaConfig::default())
    }

    /// The general form: any opened file, device and configuration, whose batch size is the number of answers that run at the same time.
    ///
    /// # Errors
    /// As [`LlamaModel::load`], or if the file's vocabulary or chat template cannot be used.
    pub fn load(gguf: &Gguf, device: Device, config: LlamaConfig) -> Result<TextModel, TextError> {
        let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata())?);
        let template = match ChatTemplate::from_metadata(gguf.metadata(), &tokenizer) {
            Ok(template) => Some(template),
            Err(ChatError::NoTemplate { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        let engine = Engine::new(LlamaModel::load(gguf, device, config)?, tokenizer.clone());
        Ok(TextModel { engine, tokenizer, template })
    }

    /// The longest sequence in tokens, prompt and answer together.
    pub fn context(&self) -> usize {
        self.engine.context()
    }

    /// A request to continue a conversation: greedy, and as long as the context. Its fields say what else can be asked for. Without a
    /// chat template, the texts themselves are the prompt, a line each.
    ///
    /// # Errors
    /// If the template refuses the messages.
    pub fn request(&self, messages: &[Message]) -> Result<Request, TextError> {
        let prompt = match &self.template {
            Some(template) => {
                template.encode(&self.tokenizer, &Chat::new(messages.iter().cloned()), SystemTime::now())?
            }
            None => {
                let texts: Vec<&str> = messages.iter().filter_map(Message::text).collect();
                self.tokenizer.encode(&texts.join("\n"), self.tokenizer.adds_bos(), false)?
            }
        };
        Ok(Request { prompt, max_tokens: self.context(), ..Request::default() })
    }

    /// Continues a conversation, and passes on the answer's text as it is generated. Returns the whole answer.
    ///
    /// # Errors
    /// As [`request`](Self::request) and [`run`](Self::run).
    pub fn answer(
        &mut self,
        messages: &[Message],
        mut on_text: impl FnMut(&str),
    ) -> Result<String, TextError> {
        let request = self.request(messages)?;
        let answers = self.run(vec![request], |_, text| on_text(text))?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// Answers requests in as few batches as possible, and returns the answers in the order of the requests. `on_text` gets the pieces of
    /// all answers as they come, with the index of their request.
    ///
    /// # Errors
    /// If a request is refused or fails, or the device does. No other answer is returned then.
    pub fn run(
        &mut self,
        requests: Vec<Request>,
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<Vec<String>, TextError> {
        let mut ids = Vec::new();
        let mut answers = vec![String::new(); requests.len()];
        let ran = self.run_to_the_end(requests, &mut ids, |i, text| {
            on_text(i, text);
            answers[i].push_str(text);
        });
        // After an error, nothing of these requests may be left for the next call.
        for id in ids {
            self.engine.cancel(id);
        }
        ran.map(|()| answers)
    }

    fn run_to_the_end(
        &mut self,
        requests: Vec<Request>,
        ids: &mut Vec<crate::RequestId>,
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<(), TextError> {
        for request in requests {
            ids.push(self.engine.add(request)?);
        }
        let mut events = Vec::new();
        while !self.engine.is_idle() {
            self.engine.step_ahead(&mut events)?;
            for event in events.drain(..) {
                // Ids ascend in the order of the requests.
                let at = ids.binary_search(&event.id());
                match event {
                    Event::Token { text, .. } | Event::Finished { text, .. } => {
                        if let Ok(i) = at {
                            on_text(i, &text);
                        }
                    }
                    Event::Failed { error, .. } => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

//! `recua chat`: a conversation. Each turn is one request that contains the whole conversation so far.

mod input;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use recua::chat::Message;
use recua::{Engine, Event, LlamaConfig, MAX_SEQ_LEN_DEFAULT, Request, SamplingParams};

use crate::args::{AnswerLimit, ChatArgs};
use crate::failure::{Failure, OrFail, Result};
use crate::model::{self, ModelFile};
use crate::output::{note, printable};
use crate::prompt::{self, Form};
use input::{Input, Said};

const HELP: &str = "\
/clear          forget the conversation
/system TEXT    set the system message and forget the conversation; without TEXT, show it
/help           show this list
/bye            leave (Ctrl-D does too)
Ctrl-C ends an answer.";

/// Set while an answer is generated. Ctrl-C then ends the answer; otherwise it ends the program.
static GENERATING: AtomicBool = AtomicBool::new(false);
/// Set by Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(args: ChatArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    let tokenizer = Arc::new(file.tokenizer()?);
    let form = Form::of(&file, &tokenizer, false)?;
    let params = prompt::sampling(&args.sampling, &args.model)?;
    let context = file.context(args.ctx_size, MAX_SEQ_LEN_DEFAULT)?;
    let config = LlamaConfig { max_seq_len: context, ..LlamaConfig::default() };
    let model = file.load(model::open_device(&args.device)?, config)?;
    ctrlc::set_handler(interrupt).or_other()?;
    let mut input = Input::open()?;
    form.note_if_raw();
    if input.is_interactive() {
        note!("{}, context {context}. /help lists the commands.", model::device_line(model.device()));
    }
    let mut chat = Chat {
        engine: Engine::new(model, tokenizer),
        form,
        params,
        max_tokens: args.sampling.max_tokens.unwrap_or(AnswerLimit::Context).within(context),
        stop: args.sampling.stop,
        system: args.system,
        messages: Vec::new(),
    };
    loop {
        match input.next()? {
            Said::Nothing => {}
            Said::Line(line) => match line.split_once(char::is_whitespace).unwrap_or((&line, "")) {
                ("/bye" | "/exit" | "/quit", _) => return Ok(()),
                ("/help" | "/?", _) => note!("{HELP}"),
                ("/clear", _) => chat.messages.clear(),
                ("/system", text) => chat.set_system(text.trim()),
                (word, _) if word.starts_with('/') => {
                    note!("there is no command {}; /help lists them", printable(word));
                }
                _ => match chat.answer(&line) {
                    // At a terminal the user can correct it and go on; a script needs the exit code.
                    Err(Failure::User(message)) if input.is_interactive() => {
                        note!("error: {}", printable(&message));
                    }
                    result => result?,
                },
            },
            Said::End => return Ok(()),
        }
    }
}

fn interrupt() {
    if GENERATING.load(Ordering::SeqCst) {
        INTERRUPTED.store(true, Ordering::SeqCst);
    } else {
        // The exit code by which shells report a program that Ctrl-C ended.
        std::process::exit(130);
    }
}

struct Chat {
    engine: Engine,
    form: Form,
    params: SamplingParams,
    max_tokens: usize,
    stop: Vec<String>,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Chat {
    fn set_system(&mut self, text: &str) {
        if text.is_empty() {
            note!("{}", self.system.as_deref().map_or("(no system message)".to_owned(), printable));
        } else {
            self.system = Some(text.to_owned());
            self.messages.clear();
        }
    }

    /// Answers a message on stdout. If that fails, the conversation stays as it was.
    fn answer(&mut self, text: &str) -> Result {
        self.messages.push(Message::new("user", text));
        match self.generate() {
            Ok(answer) => {
                self.messages.push(Message::new("assistant", answer));
                Ok(())
            }
            Err(e) => {
                self.messages.pop();
                Err(e)
            }
        }
    }

    fn generate(&mut self) -> Result<String> {
        let request = self.request()?;
        let mut out = crate::output::stdout();
        let (mut answer, mut events) = (String::new(), Vec::new());
        let (start, mut n_tokens) = (Instant::now(), 0);
        let id = self.engine.add(request).or_user()?;
        INTERRUPTED.store(false, Ordering::SeqCst);
        GENERATING.store(true, Ordering::SeqCst);
        while !self.engine.is_idle() {
            let stepped = self.engine.step_ahead(&mut events);
            n_tokens += stepped.map_err(|e| model::failure(e, ""))?.generated;
            for event in events.drain(..) {
                if let Event::Failed { error, .. } = event {
                    return Err(Failure::other(error));
                }
                let text = crate::run::text_of(&event);
                out.write_all(text.as_bytes())?;
                answer.push_str(text);
            }
            out.flush()?;
            if INTERRUPTED.load(Ordering::SeqCst) {
                self.engine.cancel(id);
            }
        }
        GENERATING.store(false, Ordering::SeqCst);
        writeln!(out)?;
        out.flush()?;
        let seconds = start.elapsed().as_secs_f64();
        note!("[{n_tokens} tokens, {:.1} tokens/s]", n_tokens as f64 / seconds);
        Ok(answer)
    }

    fn request(&self) -> Result<Request> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<_> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = self.form.encode(self.engine.tokenizer(), &messages)?;
        let context = self.engine.context();
        if prompt.len() >= context {
            return Err(Failure::user(format!(
                "the conversation has {} tokens, too many for the context of {context}; start a new one with /clear, \
                 or raise --ctx-size",
                prompt.len()
            )));
        }
        Ok(Request {
            prompt,
            params: self.params.clone(),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ..Request::default()
        })
    }
}

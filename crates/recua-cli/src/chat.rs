//! `recua chat`: a conversation. Each turn is one request that contains the conversation so far, or as much of it as the context holds.

mod command;
mod conversation;
mod history;
mod input;
mod settings;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use recua::chat::Message;
use recua::{Engine, Event, FinishReason, LlamaConfig, MAX_SEQ_LEN_DEFAULT, Request, Usage};

use crate::args::{ChatArgs, Kept};
use crate::failure::{Failure, OrFail, Result};
use crate::interrupt;
use crate::model::{self, ModelFile};
use crate::output::{count, note, printable};
use crate::prompt::{self, Form};
use crate::screen::Screen;
use command::Command;
use conversation::Conversation;
use input::{Input, Said};
use settings::Settings;

/// The part of the context that is kept free for an answer, at most: one over this.
const ANSWER_PART: usize = 4;

pub(crate) fn run(args: ChatArgs) -> Result {
    let file = ModelFile::open(&args.model)?;
    let tokenizer = Arc::new(file.tokenizer()?);
    let form = Form::of(&file, &tokenizer, false)?;
    let settings = Settings::new(args.sampling, prompt::defaults(&file)?)?;
    let context = file.context(args.ctx_size, MAX_SEQ_LEN_DEFAULT)?;
    let config = LlamaConfig { max_seq_len: context, kv_type: args.kv.kv_type, ..LlamaConfig::default() };
    let model = file.load(model::open_device(&args.device)?, config)?;
    interrupt::handle()?;
    let mut input = Input::open()?;
    form.note_if_raw();
    if input.is_interactive() {
        note!("{}, context {context}. /help lists the commands.", model::device_line(model.device()));
    }
    let mut chat = Chat {
        engine: Engine::new(model, tokenizer),
        form,
        settings,
        keep: args.keep,
        conversation: Conversation::new(args.system),
        n_left_out: 0,
        has_noted_kv_cut: false,
    };
    loop {
        let done = match input.next() {
            Ok(Said::Nothing) => Ok(()),
            Ok(Said::Text(text)) => chat.answer(&text),
            Ok(Said::Command(line)) => match Command::of(&line) {
                Command::Leave => return Ok(()),
                command => chat.obey(command),
            },
            Ok(Said::End) => return Ok(()),
            Err(e) => Err(e),
        };
        match done {
            // At a terminal the user can correct it and go on; a script needs the exit code.
            Err(Failure::User(message)) if input.is_interactive() => note!("error: {}", printable(&message)),
            done => done?,
        }
    }
}

struct Chat {
    engine: Engine,
    form: Form,
    settings: Settings,
    keep: Kept,
    conversation: Conversation,
    // The turns that the latest request did without.
    n_left_out: usize,
    has_noted_kv_cut: bool,
}

impl Chat {
    fn obey(&mut self, command: Command<'_>) -> Result {
        match command {
            Command::Help => command::show_help(),
            Command::Clear => {
                let system = self.conversation.system.take();
                self.begin(Conversation::new(system));
            }
            Command::System("") => {
                note!(
                    "{}",
                    self.conversation.system.as_deref().map_or("(no system message)".to_owned(), printable)
                );
            }
            Command::System(text) => self.begin(Conversation::new(Some(text.to_owned()))),
            Command::Set("", _) => self.settings.show(),
            Command::Set(name, value) => self.settings.set(name, value)?,
            Command::Save("") => return Err(Failure::user("/save needs the name of a file")),
            Command::Save(file) => {
                self.conversation.save(Path::new(file))?;
                note!("saved {} to {}", count(self.conversation.n_turns(), "turn"), printable(file));
            }
            Command::Load("") => return Err(Failure::user("/load needs the name of a file")),
            Command::Load(file) => {
                self.begin(Conversation::load(Path::new(file))?);
                note!("loaded {} from {}", count(self.conversation.n_turns(), "turn"), printable(file));
            }
            Command::Unknown(word) => note!("there is no command {}; /help lists them", printable(word)),
            // The loop has ended.
            Command::Leave => {}
        }
        Ok(())
    }

    fn begin(&mut self, conversation: Conversation) {
        (self.conversation, self.n_left_out) = (conversation, 0);
    }

    /// Answers a message on stdout. If that fails, the conversation stays as it was.
    fn answer(&mut self, text: &str) -> Result {
        self.conversation.push("user", text);
        match self.generate() {
            Ok(answer) => {
                self.conversation.push("assistant", answer);
                Ok(())
            }
            Err(e) => {
                self.conversation.pop();
                Err(e)
            }
        }
    }

    fn generate(&mut self) -> Result<String> {
        let request = self.request()?;
        let mut out = crate::output::stdout();
        let mut screen = Screen::of_stdout();
        let (mut answer, mut events, mut end) = (String::new(), Vec::new(), None);
        let (start, mut n_tokens) = (Instant::now(), 0);
        let id = self.engine.add(request).or_user()?;
        let under_way = interrupt::under_way();
        while !self.engine.is_idle() {
            let stepped = self.engine.step_ahead(&mut events);
            n_tokens += stepped.map_err(|e| model::failure(e, ""))?.generated;
            for event in events.drain(..) {
                match &event {
                    Event::Failed { error, .. } => return Err(Failure::other(error)),
                    Event::Finished { reason, usage, .. } => end = Some((*reason, *usage)),
                    Event::Token { .. } => {}
                }
                let text = crate::run::text_of(&event);
                out.write_all(screen.pass(text).as_bytes())?;
                answer.push_str(text);
            }
            out.flush()?;
            if under_way.is_to_end() {
                self.engine.cancel(id);
            }
        }
        writeln!(out)?;
        out.flush()?;
        if under_way.is_to_end() {
            note!("[ended by Ctrl-C]");
        }
        let seconds = start.elapsed().as_secs_f64();
        note!("[{}, {:.1} tokens/s]", count(n_tokens, "token"), n_tokens as f64 / seconds);
        self.note_if_cut(end);
        if !self.has_noted_kv_cut {
            self.has_noted_kv_cut = model::note_kv_cut(self.engine.model().device())?;
        }
        Ok(answer)
    }

    /// Says what cut an answer, unless it ended by itself.
    fn note_if_cut(&self, end: Option<(FinishReason, Usage)>) {
        let Some((FinishReason::Length, usage)) = end else { return };
        let (context, n) = (self.engine.context(), usage.generated_tokens);
        if usage.prompt_tokens + n >= context {
            note!(
                "[the answer ends here because the context of {context} tokens is full; --ctx-size raises it]"
            );
        } else {
            note!("[the answer ends here after {}; /set max-tokens changes that]", count(n, "token"));
        }
    }

    /// The next request: the whole conversation, or without its oldest turns if that is more than the context holds.
    fn request(&mut self) -> Result<Request> {
        let context = self.engine.context();
        let (max_tokens, params) = (self.settings.max_tokens(context), self.settings.params().clone());
        let room = context - max_tokens.min(context / ANSWER_PART);
        let (prompt, n_left_out) = self.prompt(room)?;
        if prompt.len() >= context {
            return Err(Failure::user(format!(
                "the conversation has {} tokens, too many for the context of {context}; start a new one with /clear, \
                 or raise --ctx-size",
                prompt.len()
            )));
        }
        if n_left_out > self.n_left_out {
            let oldest = if self.keep == Kept::Tokens(0) { "oldest" } else { "oldest after those of --keep" };
            note!(
                "[the context of {context} tokens is full: {}, the {oldest}, left out]",
                count(n_left_out, "turn")
            );
        }
        self.n_left_out = n_left_out;
        let stop = self.settings.stop().to_vec();
        Ok(Request { prompt, params, max_tokens, stop, ..Request::default() })
    }

    /// The prompt with as few turns left out as make it at most `room` tokens long, and how many those are. The last turn is never left
    /// out, so the prompt may still be longer.
    fn prompt(&self, room: usize) -> Result<(Vec<u32>, usize)> {
        let whole = self.encode(&self.conversation.without(0..0))?;
        if whole.len() <= room {
            return Ok((whole, 0));
        }
        let n_kept = self.n_kept(room)?;
        let n_max = self.conversation.n_turns().saturating_sub(1).saturating_sub(n_kept);
        let without = |n: usize| self.encode(&self.conversation.without(n_kept..n_kept + n));
        // The least number of turns that is enough, by halves. All that were left out before are left out again.
        let (mut low, mut high) = (self.n_left_out.min(n_max), n_max);
        while low < high {
            let middle = low + (high - low) / 2;
            if without(middle)?.len() <= room { high = middle } else { low = middle + 1 }
        }
        Ok((without(high)?, high))
    }

    /// How many turns at the beginning stay, as `--keep` says.
    fn n_kept(&self, room: usize) -> Result<usize> {
        let most = match self.keep {
            Kept::All => return Ok(usize::MAX),
            Kept::Tokens(n) => n.min(room),
        };
        let mut n_turns = 0;
        while n_turns < self.conversation.n_turns()
            && self.encode(&self.conversation.first(n_turns + 1))?.len() <= most
        {
            n_turns += 1;
        }
        Ok(n_turns)
    }

    fn encode(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let prompt = self.form.encode(self.engine.tokenizer(), messages.iter().cloned())?;
        Ok(prompt.tokens)
    }
}

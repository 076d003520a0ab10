//! `recua render`: the prompt that a chat template makes of a conversation in JSON.

use std::io::{IsTerminal, Write};
use std::path::Path;

use recua::chat::{Chat, ChatTemplate, Ending, Message};
use recua::gguf::Gguf;
use recua::tokenizer::Tokenizer;
use serde_json::{Map, Value};

use crate::args::RenderArgs;
use crate::failure::{Failure, OrFail, Result};
use crate::prompt::local_time;
use crate::tokenize::tokenizer;
use crate::{output, source};

pub(crate) fn run(args: RenderArgs) -> Result {
    let gguf = source::open(&args.model)?;
    let tokenizer = tokenizer(&gguf, &args.model)?;
    let template = template(&args, &gguf, &tokenizer)?;
    let chat = chat(&args)?;
    let mut out = output::stdout();
    if args.tokens {
        let ids = template.encode(&tokenizer, &chat, local_time()).or_user()?;
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(out, "{}", ids.join(" "))?;
    } else {
        out.write_all(template.render(&chat, local_time()).or_user()?.as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

fn template(args: &RenderArgs, gguf: &Gguf, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
    let meta = gguf.metadata();
    let in_model = |e| Failure::user(format!("{}: {e}", args.model));
    match args.template.as_deref() {
        None => ChatTemplate::from_metadata(meta, tokenizer).map_err(in_model),
        Some(name) if ChatTemplate::names(meta).any(|known| known == name) => {
            ChatTemplate::named(name, meta, tokenizer).map_err(in_model)
        }
        Some(path) if Path::new(path).exists() => {
            let text = source::read_text(Path::new(path))?;
            ChatTemplate::new(&text, meta, tokenizer).map_err(|e| Failure::user(format!("{path}: {e}")))
        }
        Some(name) => {
            let known: Vec<_> = ChatTemplate::names(meta).collect();
            let known = known.join(", ");
            Err(Failure::user(format!(
                "{name}: there is no such file, and no such template; there are {known}"
            )))
        }
    }
}

/// The conversation, with what the flags add to it.
fn chat(args: &RenderArgs) -> Result<Chat> {
    let (text, name) = match &args.conversation {
        Some(path) => (source::read_text(path)?, path.display().to_string()),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::user("no conversation; give a file, or JSON on standard input"));
        }
        None => (source::read_stdin()?, "standard input".to_owned()),
    };
    let mut chat = match json(&text, &name)? {
        messages @ Value::Array(_) => Chat::new(self::messages(messages, &name)?),
        Value::Object(fields) => from_fields(fields, &name)?,
        _ => {
            return Err(Failure::user(format!(
                "{name}: is neither a list of messages nor an object with one"
            )));
        }
    };
    if let Some(path) = &args.tools {
        let name = path.display().to_string();
        chat.tools = list(json(&source::read_text(path)?, &name)?, "the file", &name)?;
    }
    chat.variables.extend(args.variables.iter().cloned());
    chat.ending = match (args.no_generation_prompt, args.continue_last) {
        (true, _) => Ending::LastMessage,
        (_, true) => Ending::ContinueLastMessage,
        _ => Ending::GenerationPrompt,
    };
    if args.parse_arguments {
        chat.parse_tool_arguments();
    }
    Ok(chat)
}

/// A chat from the body of a request. What has nothing to do with templates is not looked at.
fn from_fields(mut fields: Map<String, Value>, name: &str) -> Result<Chat> {
    let mut take = |field: &str| fields.remove(field).unwrap_or(Value::Null);
    let mut chat = Chat::new(messages(take("messages"), name)?);
    chat.tools = list(take("tools"), "tools", name)?;
    chat.documents = list(take("documents"), "documents", name)?;
    match take("chat_template_kwargs") {
        Value::Null => {}
        Value::Object(variables) => chat.variables = variables,
        _ => return Err(Failure::user(format!("{name}: chat_template_kwargs is not an object"))),
    }
    Ok(chat)
}

fn json(text: &str, name: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Failure::user(format!("{name}: is not JSON: {e}")))
}

fn messages(value: Value, name: &str) -> Result<Vec<Message>> {
    let Value::Array(messages) = value else {
        return Err(Failure::user(format!("{name}: has no list of messages")));
    };
    let messages = messages.into_iter().zip(1..);
    messages
        .map(|(message, i)| {
            Message::from_json(message).map_err(|e| Failure::user(format!("{name}: message {i}: {e}")))
        })
        .collect()
}

fn list(value: Value, what: &str, name: &str) -> Result<Option<Vec<Value>>> {
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => Ok(Some(items)),
        _ => Err(Failure::user(format!("{name}: {what} is not a list"))),
    }
}

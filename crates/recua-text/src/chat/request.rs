//! What a template turns into a prompt: messages, tools, documents, and variables of the model's own.

use serde_json::{Map, Value};

use super::error::ChatError;

/// One message of a conversation: a JSON object as the chat APIs have it. It has a `role` and mostly a `content` (a text,
/// a list of parts, or none beside `tool_calls`); what else is in it (`name`, `tool_call_id`, `reasoning_content` …), the
/// template sees too.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub(super) fields: Map<String, Value>,
}

impl Message {
    /// A message that is a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), Value::String(role.into()));
        fields.insert("content".to_owned(), Value::String(content.into()));
        Message { fields }
    }

    /// A message from JSON.
    ///
    /// # Errors
    ///
    /// [`ChatError::Request`] if it is no object, or its `role` is no string.
    pub fn from_json(message: Value) -> Result<Message, ChatError> {
        match message {
            Value::Object(fields) if matches!(fields.get("role"), Some(Value::String(_))) => {
                Ok(Message { fields })
            }
            Value::Object(_) => Err(ChatError::Request("a message has no role that is a string".to_owned())),
            other => Err(ChatError::Request(format!("a message is {}, not an object", kind(&other)))),
        }
    }

    /// The speaker: `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text, unless the content is something else.
    pub fn text(&self) -> Option<&str> {
        self.fields.get("content").and_then(Value::as_str)
    }

    /// All of it.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

/// How a prompt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// With the beginning of the assistant's turn (`add_generation_prompt` is true).
    #[default]
    GenerationPrompt,
    /// With the last message.
    LastMessage,
    /// Within the last message, which the model continues: what the template writes behind its text is cut off, as with
    /// `continue_final_message` in transformers.
    ContinueLastMessage,
}

/// A conversation, and what else its template may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// The tools that the model may call, as JSON schemas; `none` to the template if there are none.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from; `none` to the template if there are none.
    pub documents: Option<Vec<Value>>,
    /// More variables by name, such as `enable_thinking` or `reasoning_effort`. They may replace special tokens.
    pub variables: Map<String, Value>,
    /// How the prompt ends.
    pub ending: Ending,
}

impl Chat {
    /// A conversation without tools, of which the assistant says the next.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Chat {
        Chat { messages: messages.into_iter().collect(), ..Chat::default() }
    }

    /// Turns the arguments of tool calls that are JSON text, as the chat APIs send them, into the objects that most
    /// templates expect. Text that is no JSON object stays text.
    pub fn parse_tool_arguments(&mut self) {
        for message in &mut self.messages {
            let Some(Value::Array(calls)) = message.fields.get_mut("tool_calls") else { continue };
            for call in calls {
                // Beside the name in `function`, or without that.
                let holder = if call.get("function").is_some() { &mut call["function"] } else { call };
                let Some(arguments) = holder.get_mut("arguments") else { continue };
                let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
                if let Some(parsed @ Value::Object(_)) = parsed {
                    *arguments = parsed;
                }
            }
        }
    }
}

/// What a JSON value is, for errors.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The names under which a message has the model's reasoning; the first is what templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as transformers hands it to a template: without what is null, and with the reasoning under the two names
/// that templates read, whatever it is called.
pub(super) fn normalized(message: &Message) -> Map<String, Value> {
    let there = message.fields.iter().filter(|(_, value)| !value.is_null());
    let fields: Map<String, Value> = there.map(|(name, value)| (name.clone(), value.clone())).collect();
    let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() else {
        return fields;
    };
    let mut all = Map::new();
    if !fields.contains_key("thinking") {
        all.insert("thinking".to_owned(), reasoning.clone());
    }
    all.extend(fields);
    all.insert("reasoning_content".to_owned(), reasoning);
    all
}

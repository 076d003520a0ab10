//! The messages of a conversation, the part of them that fits the context, and their file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;

use recua::chat::Message;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::output;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A system message and turns; a turn begins with each message of the user.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    messages: Vec<Message>,
}

/// A conversation in a file, in the form of a request to a chat API.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<SavedMessage>,
}

#[derive(Serialize, Deserialize)]
struct SavedMessage {
    role: String,
    content: String,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, messages: Vec::new() }
    }

    pub(super) fn push(&mut self, role: &str, text: impl Into<String>) {
        self.messages.push(Message::new(role, text));
    }

    /// Takes back the last message.
    pub(super) fn pop(&mut self) {
        self.messages.pop();
    }

    pub(super) fn n_turns(&self) -> usize {
        self.starts().count()
    }

    /// The system message and all turns except those of `left_out`, which are counted from 0.
    pub(super) fn without(&self, left_out: Range<usize>) -> Vec<Message> {
        let starts: Vec<usize> = self.starts().chain([self.messages.len()]).collect();
        let at = |turn: usize| starts[turn.min(starts.len() - 1)];
        let gap = if left_out.is_empty() { 0..0 } else { at(left_out.start)..at(left_out.end) };
        let kept = self.messages.iter().enumerate().filter(|(i, _)| !gap.contains(i)).map(|(_, m)| m.clone());
        self.system().chain(kept).collect()
    }

    /// The system message and the first turns.
    pub(super) fn first(&self, n_turns: usize) -> Vec<Message> {
        self.without(n_turns..usize::MAX)
    }

    fn system(&self) -> impl Iterator<Item = Message> + '_ {
        self.system.iter().map(|text| Message::new("system", text))
    }

    /// Where the turns begin in the list of messages.
    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.messages.iter().enumerate().filter(|(_, message)| message.role() == "user").map(|(i, _)| i)
    }

    /// Writes the conversation to a file, which appears complete or not at all. Of what is already there, only a saved conversation is
    /// replaced.
    pub(super) fn save(&self, path: &Path) -> Result {
        let fail = |e: std::io::Error| Failure::user(format!("{}: {e}", path.display()));
        if fs::symlink_metadata(path).is_ok() && Self::load(path).is_err() {
            let message = "is there already and is no saved conversation; give another name";
            return Err(Failure::user(format!("{}: {message}", path.display())));
        }
        let saved = |message: Message| SavedMessage {
            role: message.role().to_owned(),
            content: message.text().unwrap_or_default().to_owned(),
        };
        let saved = Saved { messages: self.first(usize::MAX).into_iter().map(saved).collect() };
        let mut text = Vec::new();
        output::write_json(&mut text, &saved)?;
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let mut file = File::create_new(&temporary).map_err(fail)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&temporary, path));
        written.map_err(|e| {
            // What is wrong is said already.
            let _ = fs::remove_file(&temporary);
            fail(e)
        })
    }

    /// Reads a saved conversation.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let fail = |problem: String| Failure::user(format!("{}: {problem}", path.display()));
        let is_file = fs::metadata(path).map_err(|e| fail(e.to_string()))?.is_file();
        if !is_file {
            return Err(fail("is not a file".into()));
        }
        let mut text = Vec::new();
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| fail(e.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(fail(format!("is larger than {}", output::bytes(FILE_BYTES_MAX))));
        }
        let saved: Saved =
            serde_json::from_slice(&text).map_err(|e| fail(format!("is no saved conversation: {e}")))?;
        let mut conversation = Self::default();
        for (i, SavedMessage { role, content }) in saved.messages.into_iter().enumerate() {
            match &*role {
                "system" if i == 0 => conversation.system = Some(content),
                "user" | "assistant" => conversation.push(&role, content),
                _ => return Err(fail(format!("message {} cannot have the role {role:?}", i + 1))),
            }
        }
        Ok(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::new(Some("s".into()));
        for text in ["1", "2", "3"] {
            conversation.push("user", format!("q{text}"));
            if text != "3" {
                conversation.push("assistant", format!("a{text}"));
            }
        }
        conversation
    }

    fn texts(messages: Vec<Message>) -> String {
        messages.iter().filter_map(Message::text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whole_turns_are_left_out() {
        let all = conversation();
        assert_eq!(all.n_turns(), 3);
        assert_eq!(texts(all.without(0..0)), "s q1 a1 q2 a2 q3");
        assert_eq!(texts(all.without(0..1)), "s q2 a2 q3");
        assert_eq!(texts(all.without(1..2)), "s q1 a1 q3");
        assert_eq!(texts(all.without(0..2)), "s q3");
        assert_eq!(texts(all.first(1)), "s q1 a1");
        assert_eq!(texts(all.first(9)), texts(all.without(0..0)));
    }

    #[test]
    fn a_file_holds_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        conversation().save(&path).unwrap();
        // A saved one is replaced.
        conversation().save(&path).unwrap();
        let loaded = Conversation::load(&path).unwrap();
        assert_eq!(texts(loaded.first(9)), texts(conversation().first(9)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter.txt");
        fs::write(&path, "Dear Sir").unwrap();
        assert!(conversation().save(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"Dear Sir");
        assert!(conversation().save(folder.path()).is_err());
        for bad in
            ["", "{}", r#"{"messages":[{"role":"tool","content":""}]}"#, r#"{"messages":[{"role":"user"}]}"#]
        {
            fs::write(&path, bad).unwrap();
            assert!(Conversation::load(&path).is_err(), "{bad}");
        }
    }
}

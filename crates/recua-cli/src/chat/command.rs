//! What a line of a conversation that begins with a slash asks for.

use crate::output::note;

/// One such line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Help,
    Clear,
    /// The new system message; empty, the old one is shown.
    System(&'a str),
    /// A setting and its value; both empty, all are shown.
    Set(&'a str, &'a str),
    Save(&'a str),
    Load(&'a str),
    Leave,
    Unknown(&'a str),
}

const HELP: [(&str, &str); 7] = [
    (
        "/set NAME VALUE",
        "change a setting: temp, top-k, top-p, min-p, seed, max-tokens, stop, system, …; alone, show them",
    ),
    ("/system TEXT", "set the system message and forget the conversation; alone, show it"),
    ("/clear", "forget the conversation"),
    ("/save FILE", "write the conversation as JSON"),
    ("/load FILE", "continue a saved conversation"),
    ("/help", "show this list"),
    ("/bye", "leave (Ctrl-D does too)"),
];

impl<'a> Command<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "/help" | "/?" => Self::Help,
            "/clear" => Self::Clear,
            "/system" => Self::System(rest),
            "/set" => {
                let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                match (name, value.trim()) {
                    ("system", text) => Self::System(text),
                    (name, value) => Self::Set(name, value),
                }
            }
            "/save" => Self::Save(rest),
            "/load" => Self::Load(rest),
            "/bye" | "/exit" | "/quit" => Self::Leave,
            word => Self::Unknown(word),
        }
    }
}

pub(super) fn show_help() {
    for (usage, what) in HELP {
        note!("{usage:<16} {what}");
    }
    note!(
        "A text of several lines stands between two \"\"\", or its lines end with \\. Ctrl-C ends an answer; what is typed meanwhile \
         is read next."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        for (line, command) in [
            ("/set temp  0.5", Command::Set("temp", "0.5")),
            ("/set", Command::Set("", "")),
            ("/set system be brief", Command::System("be brief")),
            ("/system\tbe brief", Command::System("be brief")),
            ("/save a name.json", Command::Save("a name.json")),
            ("/quit", Command::Leave),
            ("/nonsense x", Command::Unknown("/nonsense")),
        ] {
            assert_eq!(Command::of(line), command, "{line}");
        }
    }

    #[test]
    fn help_lists_only_what_there_is() {
        for (usage, _) in HELP {
            assert!(!matches!(Command::of(usage), Command::Unknown(_)), "{usage}");
        }
    }
}

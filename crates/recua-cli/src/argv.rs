//! Words that fingers know from other programs and that clap has no form for: options of several letters behind one hyphen, and `-m FILE`
//! for MODEL. They are rewritten before clap reads the command line.

use std::ffi::{OsStr, OsString};

use clap::Command;

/// What is typed, and the option that it means. A command without that option does not know the word either.
const WORDS: [(&str, &str); 4] =
    [("-sys", "--system"), ("-ngl", "--n-gpu-layers"), ("-ctk", "--kv-type"), ("-ctv", "--kv-type")];

/// The names of the option that stands for the argument MODEL.
const MODEL_WORDS: [&str; 2] = ["-m", "--model"];

/// The command line with every known word in the form that `cli` defines. What follows `--` or an option that takes a value stays as it is.
pub(crate) fn rewritten(argv: impl IntoIterator<Item = OsString>, cli: &Command) -> Vec<OsString> {
    let mut args: Vec<OsString> = argv.into_iter().collect();
    let (mut command, mut n_names) = (cli, 1);
    while let Some(inner) = args.get(n_names).and_then(|name| command.find_subcommand(name)) {
        (command, n_names) = (inner, n_names + 1);
    }
    let mut words = args.split_off(n_names.min(args.len())).into_iter();
    let mut models_max = models_max(command);
    let mut rest: Vec<OsString> = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word);
            rest.extend(words);
            break;
        }
        if models_max > 0
            && let Some(model) = model_of(&word, &mut words)
        {
            models_max -= 1;
            args.push(model);
            continue;
        }
        let option =
            WORDS.iter().find(|(typed, option)| word == *typed && takes_value(command, option.as_ref()));
        let word = option.map_or(word, |(_, option)| option.into());
        let value = if takes_value(command, &word) { words.next() } else { None };
        // One type for keys and values is enough.
        let is_repeated = option.is_some() && value.is_some() && has_pair(&rest, &word, value.as_ref());
        if !is_repeated {
            rest.push(word);
            rest.extend(value);
        }
    }
    args.extend(rest);
    args
}

/// How many models a command can be given.
fn models_max(command: &Command) -> usize {
    match command.get_positionals().next().map(|argument| argument.get_id().as_str()) {
        Some("model") => 1,
        Some("models") => usize::MAX,
        _ => 0,
    }
}

/// The model, if `word` is the option for it and has a value.
fn model_of(word: &OsStr, words: &mut std::vec::IntoIter<OsString>) -> Option<OsString> {
    if MODEL_WORDS.iter().any(|name| word == *name) {
        return words.next();
    }
    word.to_str()?.strip_prefix("--model=").map(OsString::from)
}

/// Whether `word` is an option of the command whose value is the next word.
fn takes_value(command: &Command, word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    let is_option = |option: &clap::Arg| match word.strip_prefix("--") {
        Some(long) => option.get_long_and_visible_aliases().is_some_and(|names| names.contains(&long)),
        None => option.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&*short.to_string())),
    };
    command.get_arguments().any(|option| option.get_action().takes_values() && is_option(option))
}

fn has_pair(words: &[OsString], option: &OsStr, value: Option<&OsString>) -> bool {
    words.windows(2).any(|pair| pair[0] == option && Some(&pair[1]) == value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{Arg, CommandFactory};

    fn check(line: &str, expected: &str) {
        // The option that -ctk and -ctv stand for.
        let cli = Cli::command().mut_subcommand("run", |run| {
            let has = run.get_arguments().any(|option| option.get_long() == Some("kv-type"));
            if has { run } else { run.arg(Arg::new("kv_type").long("kv-type")) }
        });
        let rewritten = rewritten(line.split(' ').map(OsString::from), &cli);
        let words: Vec<_> = rewritten.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn known_words_are_rewritten() {
        check("recua run m -sys text -ngl 99 p", "recua run m --system text --n-gpu-layers 99 p");
        check("recua run m -ctk q8_0 -ctv q8_0", "recua run m --kv-type q8_0");
        check("recua run m -ctk q8_0 -ctv f16", "recua run m --kv-type q8_0 --kv-type f16");
    }

    #[test]
    fn the_model_may_come_as_an_option() {
        check("recua run -p hello -m f.gguf -n 3", "recua run f.gguf -p hello -n 3");
        check("recua run --model=f.gguf hello", "recua run f.gguf hello");
        check("recua bench -m a -m b --batch 1", "recua bench a b --batch 1");
        check("recua bench ops -m a", "recua bench ops a");
        // Whatever has no meaning is left to clap, which refuses it.
        check("recua run -m a -m b", "recua run a -m b");
        check("recua run -m", "recua run -m");
        check("recua synth -m a", "recua synth -m a");
    }

    #[test]
    fn values_and_what_follows_two_hyphens_stay() {
        check("recua run m --stop -sys", "recua run m --stop -sys");
        check("recua run m -p -ngl x", "recua run m -p -ngl x");
        check("recua run m -- -ngl -m", "recua run m -- -ngl -m");
        check("recua tokenize m -sys", "recua tokenize m -sys");
        check("recua", "recua");
        check("recua -m x", "recua -m x");
    }
}

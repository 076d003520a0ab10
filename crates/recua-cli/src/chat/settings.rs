//! What `/set` changes: the sampling flags, under the same names and with the same checks as on the command line.

use clap::{Args, Command, FromArgMatches};
use recua::SamplingParams;

use crate::args::{AnswerLimit, SamplingArgs};
use crate::failure::{Failure, Result};
use crate::output::{note, printable};
use crate::prompt;

pub(super) struct Settings {
    args: SamplingArgs,
    // What `args` mean for this model.
    params: SamplingParams,
    // What the model has where `args` say nothing.
    defaults: SamplingParams,
}

impl Settings {
    /// The settings that the flags give, and the model's where they give none.
    pub(super) fn new(args: SamplingArgs, defaults: SamplingParams) -> Result<Self> {
        let params = prompt::sampling(&args, &defaults)?;
        Ok(Self { args, params, defaults })
    }

    pub(super) fn params(&self) -> &SamplingParams {
        &self.params
    }

    pub(super) fn stop(&self) -> &[String] {
        &self.args.stop
    }

    /// The longest answer in a context of so many tokens.
    pub(super) fn max_tokens(&self, context: usize) -> usize {
        self.args.max_tokens.unwrap_or(AnswerLimit::Context).within(context)
    }

    /// Sets one of them. If that fails, all stay as they were.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result {
        let names = names();
        if !names.iter().any(|known| known == name) {
            return Err(Failure::user(format!(
                "there is no setting {name:?}; there are {}, system",
                names.join(", ")
            )));
        }
        let problem = |e: clap::Error| {
            let text = e.to_string();
            let line = text.lines().next().unwrap_or_default();
            Failure::user(line.strip_prefix("error: ").unwrap_or(line))
        };
        let matches = flags().try_get_matches_from([format!("--{name}={value}")]).map_err(problem)?;
        let mut args = self.args.clone();
        args.update_from_arg_matches(&matches).map_err(problem)?;
        *self = Self::new(args, self.defaults.clone())?;
        Ok(())
    }

    pub(super) fn show(&self) {
        let p = &self.params;
        note!("temp {}, top-k {}, top-p {}, min-p {}", p.temperature, p.top_k, p.top_p, p.min_p);
        note!(
            "repeat-penalty {}, frequency-penalty {}, presence-penalty {}",
            p.repeat_penalty,
            p.frequency_penalty,
            p.presence_penalty
        );
        let max_tokens = match self.args.max_tokens {
            Some(AnswerLimit::Tokens(n)) => n.to_string(),
            Some(AnswerLimit::Context) | None => "-1".to_owned(),
        };
        let stop: Vec<_> = self.args.stop.iter().map(|text| printable(text)).collect();
        note!("seed {}, max-tokens {max_tokens}, stop [{}]", p.seed, stop.join(", "));
    }
}

/// The sampling flags without their defaults: only what is typed is set.
fn flags() -> Command {
    let flags = SamplingArgs::augment_args_for_update(Command::new("set"))
        .no_binary_name(true)
        .disable_help_flag(true);
    flags.mut_args(|flag| flag.default_value(None))
}

fn names() -> Vec<String> {
    flags().get_arguments().filter_map(|flag| flag.get_long()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command as Parsed};
    use clap::Parser;

    fn settings(line: &str) -> Settings {
        let words = ["recua", "chat", "demo"].into_iter().chain(line.split_whitespace());
        let Parsed::Chat(args) = Cli::parse_from(words).command else { panic!("not chat") };
        Settings::new(args.sampling, SamplingParams::default()).unwrap()
    }

    #[test]
    fn one_setting_changes_and_the_others_stay() {
        let mut settings = settings("--top-k 7 --temp 0.3 --seed 5 --stop a");
        settings.set("top-p", "0.5").unwrap();
        settings.set("max-tokens", "9").unwrap();
        let p = settings.params();
        assert_eq!((p.top_k, p.temperature, p.top_p, p.seed), (7, 0.3, 0.5, 5));
        assert_eq!((settings.stop(), settings.max_tokens(100)), (&["a".to_owned()][..], 9));
        settings.set("frequency-penalty", "-1").unwrap();
        settings.set("max-tokens", "-1").unwrap();
        assert_eq!((settings.params().frequency_penalty, settings.max_tokens(100)), (-1.0, 100));
    }

    #[test]
    fn mistakes_change_nothing() {
        let mut settings = settings("--temp 0.3");
        for (name, value, words) in [
            ("temp", "warm", "warm"),
            ("temp", "-1", "--temp is -1"),
            ("top-k", "", "--top-k"),
            ("colour", "red", "max-tokens"),
            ("help", "", "there is no setting"),
        ] {
            let Err(Failure::User(message)) = settings.set(name, value) else { panic!("{name} {value}") };
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(settings.params().temperature, 0.3);
    }
}

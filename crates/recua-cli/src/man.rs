//! `recua man`: manual pages from the same definitions as the parser, one a command.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Cli, ManArgs};
use crate::failure::{Failure, Result};
use crate::output::{self, count, note, printable};

pub(crate) fn run(args: ManArgs) -> Result {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Gives the commands within commands their full names.
    program.build();
    match &args.out {
        Some(folder) => write_all(&program, folder),
        None => output::print(&page(find(&program, &args.command)?)?),
    }
}

fn find<'a>(program: &'a Command, names: &[String]) -> Result<&'a Command> {
    names.iter().try_fold(program, |command, name| {
        command.find_subcommand(name).ok_or_else(|| {
            let known: Vec<_> = shown(command).map(Command::get_name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failure::user(format!("there is no command {name:?}; there are {known}"))
        })
    })
}

fn write_all(program: &Command, folder: &Path) -> Result {
    let fail = |path: &Path, e: std::io::Error| Failure::user(format!("{}: {e}", path.display()));
    fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
    let mut commands = vec![program];
    let mut n_pages = 0;
    while let Some(command) = commands.pop() {
        commands.extend(shown(command));
        let path = folder.join(format!("{}.1", name(command)));
        fs::write(&path, page(command)?).map_err(|e| fail(&path, e))?;
        n_pages += 1;
    }
    note!("{} in {}", count(n_pages, "page"), printable(&folder.display().to_string()));
    Ok(())
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// `recua-bench-ops` for `recua bench ops`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

//! `malai man`.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Context, Outcome};
use crate::args::Args;
use crate::error::Failure;
use crate::output::DONE;

/// Prints malai's manual page, or writes it and one for each subcommand into a folder.
pub(crate) fn man(context: &Context, dir: Option<&Path>) -> Outcome {
    let mut root = Args::command();
    // Gives every subcommand its full name.
    root.build();
    let done = match dir {
        None => page(&root).map(|(_, page)| context.output.raw(&page)),
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| write_all(&root, dir)),
    };
    match (done, dir) {
        (Ok(()), _) => Ok(DONE),
        (Err(error), None) => Err(Failure::local("make the manual page", &error)),
        (Err(error), Some(dir)) => {
            Err(Failure::local(format!("write manual pages to {}", dir.display()), &error))
        }
    }
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    let (name, text) = page(command)?;
    std::fs::write(dir.join(name), text)?;
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).try_for_each(|sub| write_all(sub, dir))
}

/// A command's page: its file's name, and its text.
fn page(command: &Command) -> io::Result<(String, String)> {
    let notes = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command.clone().after_help(None::<&str>));
    let mut text = Vec::new();
    man.render(&mut text)?;
    if let Some(notes) = notes {
        // Not clap_mangen's: it runs the lines of examples together.
        write_notes(&mut text, &notes)?;
    }
    Ok((man.get_filename(), String::from_utf8_lossy(&text).into_owned()))
}

/// Prose is filled, examples stand as they are.
fn write_notes(out: &mut impl Write, notes: &str) -> io::Result<()> {
    writeln!(out, ".SH NOTES")?;
    let mut in_example = false;
    for line in notes.lines() {
        let is_example = line.starts_with("  ");
        if is_example != in_example {
            writeln!(out, "{}", if is_example { ".nf" } else { ".fi" })?;
            in_example = is_example;
        }
        match line {
            "" => writeln!(out, ".PP")?,
            line => writeln!(out, "{}", escaped(line))?,
        }
    }
    if in_example { writeln!(out, ".fi") } else { Ok(()) }
}

fn escaped(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

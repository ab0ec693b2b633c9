//! `malai completions`, and `malai complete-words`, which its scripts ask: what could be typed next?
//!
//! The scripts know nothing of malai's grammar or of the machines: both come from here, at each press of the key.

use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};
use malai_core::api::{KnownWords, known_words};

use super::{Context, Outcome};
use crate::args::{Args, CompleteWordsArgs, Shell};
use crate::output::DONE;

const BASH: &str = include_str!("../completions/malai.bash");
const ZSH: &str = include_str!("../completions/malai.zsh");
const FISH: &str = include_str!("../completions/malai.fish");
const POWERSHELL: &str = include_str!("../completions/malai.ps1");

/// Prints a shell's script.
pub(crate) fn completions(context: &Context, shell: Shell) -> Outcome {
    context.output.raw(match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        Shell::Powershell => POWERSHELL,
    });
    Ok(DONE)
}

/// Prints what could stand in the place of the last word: a line each, with a tab and what it is.
pub(crate) fn complete_words(context: &Context, args: CompleteWordsArgs) -> Outcome {
    let mut words = args.words;
    if args.next || words.is_empty() {
        words.push(String::new());
    }
    let names =
        || context.client_options().ok().and_then(|options| known_words(options).ok()).unwrap_or_default();
    match complete(&words, names) {
        // The shell knows its files best.
        Completion::Files => context.output.line(":files"),
        Completion::Folders => context.output.line(":dirs"),
        Completion::Words(words) => {
            for (word, about) in words {
                context.output.line(&format!("{word}\t{about}"));
            }
        }
    }
    Ok(DONE)
}

#[derive(Debug, PartialEq, Eq)]
enum Completion {
    Files,
    Folders,
    Words(Vec<(String, String)>),
}

/// Completes the last of the words behind `malai`.
fn complete(words: &[String], names: impl FnOnce() -> KnownWords) -> Completion {
    let none = Completion::Words(Vec::new());
    let mut root = Args::command();
    // Spreads the options that every subcommand takes.
    root.build();
    let Some((current, before)) = words.split_last() else { return none };
    let mut command = &root;
    let mut wanted: Option<&Arg> = None;
    let (mut positional, mut only_positional) = (0, false);
    for word in before {
        if wanted.take().is_some() {
            continue;
        }
        if only_positional {
            positional += 1;
        } else if word == "--" {
            only_positional = true;
        } else if let Some(option) = word.strip_prefix("--") {
            if !option.contains('=') {
                wanted = options(command)
                    .find(|arg| arg.get_long() == Some(option))
                    .filter(|arg| takes_value(arg));
            }
        } else if word.len() > 1 && word.starts_with('-') {
            let last = word.chars().next_back();
            wanted = options(command).find(|arg| arg.get_short() == last).filter(|arg| takes_value(arg));
        } else if let Some(sub) = command.find_subcommand(word) {
            (command, positional) = (sub, 0);
        } else if std::ptr::eq(command, &root) {
            // An address: what follows is the program's, on another machine.
            return none;
        } else {
            positional += 1;
        }
    }
    let mut found = Vec::new();
    if let Some(arg) = wanted {
        return value(arg, current, names);
    }
    if current.starts_with('-') && !only_positional {
        for arg in options(command).filter(|arg| !arg.is_hide_set()) {
            if let Some(long) = arg.get_long() {
                found.push((format!("--{long}"), first_line(arg.get_help())));
            }
        }
        return matching(current, found);
    }
    let arg = command
        .get_positionals()
        .filter(|arg| arg.is_last_set() == only_positional || !has_last(command))
        .nth(positional)
        .or_else(|| command.get_positionals().filter(|arg| !arg.is_last_set() && takes_many(arg)).last());
    // Of a program's words only the first is ours.
    let arg = arg.filter(|arg| !arg.is_last_set() && (positional == 0 || !arg.is_trailing_var_arg_set()));
    if std::ptr::eq(command, &root) {
        let names = names();
        for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            found.push((sub.get_name().to_owned(), first_line(sub.get_about())));
        }
        found.extend(names.aliases.iter().map(|(name, words)| (name.to_string(), words.join(" "))));
        found.extend(names.machines.into_iter().map(|name| (name, "machine".to_owned())));
        return matching(current, found);
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        found.push((sub.get_name().to_owned(), first_line(sub.get_about())));
    }
    match arg {
        Some(arg) if found.is_empty() => value(arg, current, names),
        _ => matching(current, found),
    }
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_positional())
}

fn takes_value(arg: &Arg) -> bool {
    // An option whose value may be left out takes the next word for none.
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
        && arg.get_num_args().is_none_or(|count| count.min_values() > 0)
}

fn takes_many(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|count| count.max_values() > 1)
        || matches!(arg.get_action(), ArgAction::Append)
}

fn has_last(command: &Command) -> bool {
    command.get_positionals().any(Arg::is_last_set)
}

/// What could be the value of an argument.
fn value(arg: &Arg, current: &str, names: impl FnOnce() -> KnownWords) -> Completion {
    let listed = arg.get_possible_values();
    if !listed.is_empty() {
        let shown = listed.iter().filter(|value| !value.is_hide_set());
        let all = shown.map(|value| (value.get_name().to_owned(), first_line(value.get_help())));
        return matching(current, all.collect());
    }
    let id = arg.get_id().as_str();
    let is_machine =
        arg.get_value_hint() == ValueHint::Hostname || matches!(id, "address" | "words" | "machine");
    if is_machine || id == "targets" {
        let names = names();
        let mut found: Vec<(String, String)> = Vec::new();
        let aliases = names.aliases.iter().filter(|(_, words)| words.len() == 1);
        found.extend(aliases.map(|(name, words)| (name.to_string(), words.join(" "))));
        if id == "targets" {
            found.extend(names.groups.into_iter().map(|name| (name, "group".to_owned())));
        }
        found.extend(names.machines.into_iter().map(|name| (name, "machine".to_owned())));
        return matching(current, found);
    }
    if id == "paths" && !current.is_empty() {
        // A path there: what follows the colon is not known here.
        let there = names().machines.into_iter().filter(|name| name.starts_with(current));
        let there: Vec<_> = there.map(|name| (format!("{name}:"), "machine".to_owned())).collect();
        return if there.is_empty() { Completion::Files } else { Completion::Words(there) };
    }
    if id == "cluster" {
        let found = names().clusters.into_iter().map(|name| (name, "cluster".to_owned()));
        return matching(current, found.collect());
    }
    match arg.get_value_hint() {
        ValueHint::DirPath => Completion::Folders,
        // Every path hints at any path.
        _ if matches!(id, "home" | "dir") => Completion::Folders,
        ValueHint::FilePath | ValueHint::AnyPath | ValueHint::ExecutablePath => Completion::Files,
        _ => Completion::Words(Vec::new()),
    }
}

fn matching(current: &str, mut found: Vec<(String, String)>) -> Completion {
    found.retain(|(word, _)| word.starts_with(current));
    Completion::Words(found)
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use malai_core::model::alias::Aliases;

    use super::*;

    fn names() -> KnownWords {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        KnownWords {
            clusters: list(&["company"]),
            machines: list(&["db01.company", "web01.company"]),
            groups: list(&["@admins.company"]),
            aliases: Aliases::new([
                ("web".parse().expect("a name"), words("web01.company")),
                ("logs".parse().expect("a name"), words("web01.company tail -f x")),
            ]),
        }
    }

    /// Completes a line; a blank at its end begins a new word.
    fn words(line: &str) -> Vec<String> {
        let typed: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match complete(&typed, names) {
            Completion::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn the_first_word_is_a_command_a_machine_or_an_alias() {
        assert_eq!(words("we"), ["web", "web01.company"]);
        assert_eq!(words("resc"), ["rescan"]);
        assert_eq!(words("complet"), ["completions"], "what is hidden stays so");
        assert_eq!(words("-v we"), ["web", "web01.company"]);
        assert_eq!(words("--home /x --json db"), ["db01.company"]);
    }

    #[test]
    fn behind_an_address_everything_is_the_program_s() {
        for line in
            ["web01.company ", "web01.company -", "exec web01.company l", "run web -- l", "web ls --h"]
        {
            assert_eq!(words(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn arguments_are_machines_groups_clusters_folders_or_listed() {
        assert_eq!(words("exec "), ["web", "db01.company", "web01.company"]);
        assert_eq!(words("ping d"), ["db01.company"]);
        assert_eq!(words("run @"), ["@admins.company"]);
        assert_eq!(words("run web01.company d"), ["db01.company"]);
        assert_eq!(words("run -j 2 --timeout 5s d"), ["db01.company"]);
        assert_eq!(words("sync "), ["company"]);
        assert_eq!(words("cluster create-invite c"), ["company"]);
        assert_eq!(words("completions z"), ["zsh"]);
        assert_eq!(words("--home "), ["Folders"]);
        assert_eq!(words("man --dir "), ["Folders"]);
        assert_eq!(words("cp we"), ["web01.company:"]);
        assert_eq!(words("cp x.txt web01.company:/srv"), ["Files"]);
        assert_eq!(words("shell --attach d"), ["db01.company"]);
    }

    #[test]
    fn options_are_those_of_the_command_and_of_all() {
        assert_eq!(words("rescan --c"), ["--check", "--connect-timeout"]);
        assert_eq!(words("cluster --js"), ["--json"]);
        assert!(words("run --").contains(&"--fail-fast".to_owned()));
        assert_eq!(words("cluster l"), ["list-invites", "list"]);
    }
}

//! `malai`: the command line. Everything it does goes through `malai_core::api`.

mod args;
mod commands;
mod daemonize;
mod env;
mod error;
mod log;
mod output;
mod own_programs;
mod pipes;
mod rsh;
mod signals;
mod terminal;
mod view;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let env = env::Env::read();
    let output = output::Output::new(&env);
    if let Some(words) = env.copy_words() {
        return commands::serve_copy(&output, &words);
    }
    match args::Args::try_parse_from(own_programs::plain_words(std::env::args_os())) {
        Ok(args) => commands::run(args, env, output),
        Err(usage) => output.usage(&usage),
    }
}

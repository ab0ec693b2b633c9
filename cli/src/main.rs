//! `malai`: the command line. Everything it does goes through `malai_core::api`.

mod args;
mod commands;
mod daemonize;
mod env;
mod error;
mod log;
mod output;
mod own_programs;
mod signals;
mod terminal;
mod view;

use clap::Parser;

fn main() -> std::process::ExitCode {
    if let Some(code) = own_programs::run() {
        return code;
    }
    let env = env::Env::read();
    let output = output::Output::new(&env);
    match args::Args::try_parse() {
        Ok(args) => commands::run(args, env, output),
        Err(usage) => output.usage(&usage),
    }
}

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
mod streams;
mod terminal;
mod view;

fn main() -> std::process::ExitCode {
    if let Some(code) = own_programs::run() {
        return code;
    }
    let env = env::Env::read();
    let output = output::Output::new(&env);
    if let Some(words) = env.copy_words() {
        return commands::serve_copy(&output, &words, env.restricted);
    }
    let words = own_programs::plain_words(std::env::args_os());
    match args::Args::read(words) {
        Ok((args, word)) => commands::run(args, word.as_deref(), env, output),
        Err(usage) => output.usage(&usage),
    }
}

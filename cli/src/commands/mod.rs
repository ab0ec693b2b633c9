//! A subcommand a file. Each parses nothing and decides nothing: it asks `malai_core::api` and shows the answer.

mod audit;
mod cluster;
mod complete;
mod cp;
mod daemon;
mod doctor;
mod exec;
mod hidden;
mod keygen;
mod machine;
mod man;
mod ping;
mod rescan;
mod rsh;
mod run;
mod session;
mod show;
mod ssh_config;
mod stdio;

use std::ffi::OsString;
use std::process::ExitCode;

use malai_core::api::{Client, ClientOptions};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::args::{Args, Command, Global, SessionOptions};
use crate::env::Env;
use crate::error::Failure;
use crate::output::{DONE, FAILED, OWN_FAILURE, Output, USAGE};

/// What every subcommand works with.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) env: Env,
    pub(crate) output: Output,
}

/// A subcommand's result: its exit status.
pub(crate) type Outcome = Result<u8, Failure>;

/// Runs what was asked for; `word` is the name of the command.
pub(crate) fn run(args: Args, word: Option<&str>, env: Env, output: Output) -> ExitCode {
    let remote_status = matches!(
        args.command,
        Command::Exec(_)
            | Command::Shell(_)
            | Command::Address(_)
            | Command::Run(_)
            | Command::Stdio(_)
            | Command::Rsh(_)
    );
    let copies = matches!(args.command, Command::Cp(_));
    let context = Context { global: args.global, env, output };
    if context.global.verbose > 0 {
        start_tracing(context.global.verbose);
    }
    if let Some(word) = word.filter(|_| !matches!(args.command, Command::Address(_))) {
        hidden::tell(&context, word);
    }
    let outcome = dispatch(&context, args.command, args.session);
    let status = match outcome {
        Ok(status) => status,
        Err(failure) => {
            context.output.failure(&failure, context.global.json);
            match (remote_status, failure.code) {
                (_, code) if copies => cp::status(code),
                (true, _) => failure.status(),
                (false, malai_core::model::code::ErrorCode::Usage) => USAGE,
                (false, _) => FAILED,
            }
        }
    };
    ExitCode::from(status)
}

fn dispatch(context: &Context, command: Command, session: SessionOptions) -> Outcome {
    if session.any() && !matches!(command, Command::Address(_)) {
        return Err(Failure::usage(
            "understand -t, --detach or --escape before a subcommand",
            "they stand before an address (`malai -t web01.company top`) or after `exec` and `shell`",
        ));
    }
    match command {
        Command::Daemon(args) => daemon::daemon(context, &args),
        Command::Audit(command) => block_on(audit::audit(context, command)),
        Command::Doctor => block_on(doctor::run(context)),
        Command::Completions(args) => complete::completions(context, args.shell),
        Command::CompleteWords(args) => complete::complete_words(context, args),
        Command::Man(args) => man::man(context, args.dir.as_deref()),
        Command::Ping(args) => block_on(ping::ping(context, args)),
        Command::Run(args) => block_on(run::run(context, args)),
        Command::Exec(args) => block_on(exec::exec(context, &args.words, &args.session)),
        Command::Address(words) => block_on(exec::exec(context, &words, &session)),
        Command::Shell(args) => block_on(session::shell(context, args)),
        Command::Sessions(args) => block_on(session::sessions(context, args)),
        Command::Cp(args) => block_on(cp::cp(context, &args)),
        Command::CopyEnd { words } => Ok(cp::serve(&context.output, &words, context.env.restricted)),
        Command::Stdio(args) => block_on(stdio::stdio(context, &args.address)),
        Command::SshConfig(args) => block_on(ssh_config::ssh_config(context, args.cluster)),
        Command::Rsh(args) => block_on(rsh::rsh(context, &args.words)),
        Command::Cluster(command) => block_on(cluster::cluster(context, command)),
        Command::InitCluster { alias, name } => block_on(cluster::init(context, alias, name)),
        Command::Machine(crate::args::MachineCommand::Init(args)) | Command::OldInit(args) => {
            block_on(machine::init(context, args))
        }
        Command::Rescan { check } => block_on(rescan::rescan(context, check)),
        Command::Sync { cluster } => block_on(rescan::sync(context, cluster)),
        Command::Keygen { file } => keygen::keygen(context, file.as_deref()),
        Command::Info => block_on(show::info(context)),
        Command::Status => block_on(show::status(context)),
    }
}

/// Serves one copy, under the name that rules know it by.
pub(crate) fn serve_copy(output: &Output, words: &[OsString], restricted: bool) -> ExitCode {
    ExitCode::from(cp::serve(output, words, restricted))
}

/// Runs one subcommand on a runtime of its own. One thread starts fastest, which is what a short command feels.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("start the runtime", &error))?;
    let outcome = runtime.block_on(work);
    // A thread may sit in a read of stdin that never returns.
    runtime.shutdown_background();
    outcome
}

impl Context {
    /// Opens the home; with a daemon, operations go through it.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::open(self.client_options()?).await?)
    }

    pub(crate) fn client_options(&self) -> Result<ClientOptions, Failure> {
        let home = self.env.home(self.global.home.as_ref()).ok_or_else(|| {
            Failure::usage("find a home directory to work in", "set MALAI_HOME or pass --home DIR")
        })?;
        let mut options = ClientOptions::new(home);
        options.runtime_dir = Some(self.env.rendezvous());
        options.socket = self.env.agent.clone();
        // Without it what is a process of malai's own is refused, with a reason; everything else works.
        match malai_core::host::OwnProgram::running() {
            Ok(program) => options.own_program = Some(program),
            Err(error) => tracing::warn!(%error, "the program that runs is not known"),
        }
        if let Some(timeout) = self.global.connect_timeout {
            options.connect_timeout = timeout;
        }
        Ok(options)
    }

    /// Prints data: as JSON if asked for, else as lines.
    pub(crate) fn show<T: serde::Serialize>(&self, data: &T, lines: impl FnOnce(&T) -> Vec<String>) -> u8 {
        if self.global.json {
            self.output.json(data);
        } else {
            for line in lines(data) {
                self.output.line(&line);
            }
        }
        DONE
    }
}

impl Failure {
    /// The status of a failed remote command: as a shell has it where the program could not be started, else 255.
    fn status(&self) -> u8 {
        match self.code {
            malai_core::model::code::ErrorCode::CommandNotFound => 127,
            malai_core::model::code::ErrorCode::CommandNotExecutable => 126,
            _ => OWN_FAILURE,
        }
    }
}

fn start_tracing(verbose: u8) {
    let filter = if verbose == 1 {
        Targets::new().with_target("malai", LevelFilter::DEBUG).with_target("malai_core", LevelFilter::DEBUG)
    } else {
        Targets::new().with_default(LevelFilter::DEBUG)
    };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| crate::log::Shown).with_ansi(false).without_time();
    // It fails only if there is one already, and this is the first thing that a command does.
    _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(lines));
}

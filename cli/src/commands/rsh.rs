//! `malai rsh`: what rsync, git, scp, sftp and ansible take for `ssh`.

use std::io::IsTerminal;

use malai_core::api::{RunRequest, SessionRequest, SingleWord};

use super::exec::{self, Feed};
use super::{Context, Outcome, session, start_tracing};
use crate::args::SessionOptions;
use crate::error::Failure;
use crate::output::DONE;
use crate::rsh::options::{self, Action, CallProblem, Quiet, SshCall, Stdin, Subsystem, TerminalWish};
use crate::rsh::words::{self, NotPlain};
use crate::terminal;

/// The program that the subsystem `sftp` is; the right that it needs is that of a command of this name.
const SFTP_SERVER: &str = "sftp-server";

pub(crate) async fn rsh(context: &Context, words: &[String]) -> Outcome {
    let call = options::parse(words).map_err(Failure::from)?;
    if call.verbose > 0 && context.global.verbose == 0 {
        start_tracing(call.verbose);
    }
    match call.action {
        Action::Run => run(context, &call).await,
        Action::PrintConfig => {
            // Not what malai does, but what a caller of `ssh -G` looks for.
            context.output.line(&format!("host {}\nhostname {}", call.host, call.host));
            Ok(DONE)
        }
        Action::Version => {
            context.output.note(concat!("malai ", env!("CARGO_PKG_VERSION")));
            Ok(DONE)
        }
    }
}

async fn run(context: &Context, call: &SshCall) -> Outcome {
    for option in &call.ignored {
        tracing::debug!(option, "this option of ssh means nothing here");
    }
    if let (Some(user), Quiet::No) = (&call.user, call.quiet) {
        context.output.note(&format!(
            "warning: the user {user:?} is ignored: the cluster's config says as whom commands run on {}",
            malai_core::model::text::escape_control(&call.host)
        ));
    }
    let command = command(call)?;
    let feed = match call.stdin {
        Stdin::Own => Feed::Stdin,
        Stdin::Empty => Feed::Nothing,
    };
    let mut global = context.global.clone();
    global.connect_timeout = global.connect_timeout.or(call.connect_timeout);
    let context = Context { global, env: context.env.clone(), output: context.output.clone() };
    let client = context.client().await?;
    let words: Vec<String> = [call.host.clone()].into_iter().chain(command).collect();
    if wants_terminal(call, client.is_bare_address(&words)?)? {
        let request = SessionRequest { words, single_word: SingleWord::Keep, ..SessionRequest::default() };
        let tty = call.terminal == TerminalWish::Force;
        let options = SessionOptions { tty, detach: false, escape: call.escape };
        return session::open_request(&context, &client, request, &options).await;
    }
    let request = RunRequest { words, single_word: SingleWord::Keep, env: context.env.locale.clone() };
    exec::exec_by(&client, request, feed).await
}

/// Whether it becomes a session. `is_shell`: no command was named.
fn wants_terminal(call: &SshCall, is_shell: bool) -> Result<bool, Failure> {
    match (call.terminal, is_shell) {
        (TerminalWish::Never, true) => Err(Failure::usage(
            "open a shell without a terminal: malai has none",
            "name a program that reads stdin: malai rsh web01.company sh -s < script",
        )),
        (TerminalWish::Never | TerminalWish::Auto, false) => Ok(false),
        (_, true) => Ok(true),
        // ansible forces one for each command, and reads the output itself, which is to stay what it is: a terminal is
        // for somebody who sits at one.
        (TerminalWish::Ask | TerminalWish::Force, false) => {
            Ok(terminal::is_terminal() && std::io::stdout().is_terminal())
        }
    }
}

/// The words to run on the machine; none: a shell is wanted.
fn command(call: &SshCall) -> Result<Vec<String>, Failure> {
    // One text, as `ssh` sends it.
    let text = call.command.join(" ");
    match call.subsystem {
        Subsystem::No => words::split(&text).map_err(Failure::from),
        Subsystem::Yes if text == "sftp" => Ok(vec![SFTP_SERVER.to_owned()]),
        Subsystem::Yes => Err(Failure::usage(
            format!("start the subsystem {text:?}: there is none but sftp"),
            "leave -s out",
        )),
    }
}

impl From<CallProblem> for Failure {
    fn from(problem: CallProblem) -> Self {
        let usage = "malai rsh [ssh's options] machine.cluster [command]";
        match problem {
            CallProblem::NoHost => Self::usage("find the machine: none was named", usage),
            CallProblem::UnknownOption(option) => {
                Self::usage(format!("understand {option}: ssh has no such option"), usage)
            }
            CallProblem::NoValue(option) => {
                Self::usage(format!("understand {option}: its value is missing"), usage)
            }
            CallProblem::BadValue { option, value } => {
                Self::usage(format!("understand {option}: {value:?} is no value for it"), usage)
            }
            CallProblem::Unsupported { option, instead } => {
                Self::usage(format!("do what {option} asks for: malai rsh runs commands only"), instead)
            }
        }
    }
}

impl From<NotPlain> for Failure {
    fn from(problem: NotPlain) -> Self {
        match problem {
            NotPlain::Shell { part, what } => Self::usage(
                format!("run the command as it is: {part:?} {what}, and no shell runs on the machine"),
                "quote it if it is meant as it stands, or run a shell yourself, with the right to: sh -c '…' \
                 (rsync: --secluded-args lets rsync match names by itself)",
            ),
            NotPlain::OpenQuote => {
                Self::usage("read the command: a quote or a backslash in it is not closed", "close it")
            }
        }
    }
}

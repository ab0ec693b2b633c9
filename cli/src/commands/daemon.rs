//! `malai daemon`.

use std::time::Duration;

use malai_core::daemon::{DaemonOptions, RotatingLog, run};

use super::{Context, Outcome};
use crate::args::DaemonArgs;
use crate::daemonize;
use crate::error::Failure;
use crate::output::DONE;

/// The log is rotated at this size, and two old ones are kept.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
/// The most threads for the tasks of a daemon: more than its work for the network keeps busy.
const MOST_WORKERS: usize = 4;

pub(crate) fn daemon(context: &Context, args: &DaemonArgs) -> Outcome {
    if args.foreground {
        return foreground(context, args.detached);
    }
    let home = context.env.home(context.global.home.as_ref()).ok_or_else(|| {
        Failure::usage("find a home directory to work in", "set MALAI_HOME or pass --home DIR")
    })?;
    if args.env {
        return print_env(context, &home);
    }
    match daemonize::start(&home, errors(context))? {
        daemonize::Started::Running(pid) => {
            context.output.note(&format!("the daemon runs, pid {pid}"));
            Ok(DONE)
        }
        // Its child has said why.
        daemonize::Started::Failed(status) => Ok(status),
    }
}

fn errors(context: &Context) -> daemonize::Errors {
    if context.global.json { daemonize::Errors::Json } else { daemonize::Errors::Text }
}

/// Prints what a shell evaluates, starting the daemon if none runs.
fn print_env(context: &Context, home: &std::path::Path) -> Outcome {
    let opened = malai_core::home::Home::open(home.to_owned(), malai_core::home::Create::Yes)
        .map_err(malai_core::Error::from)?;
    if opened.daemon_pid().is_none()
        && let daemonize::Started::Failed(status) = daemonize::start(home, errors(context))?
    {
        return Ok(status);
    }
    let socket = opened.socket_path(Some(&context.env.rendezvous())).map_err(malai_core::Error::from)?;
    // Single quotes hold everything but themselves.
    let quoted = socket.display().to_string().replace('\'', r"'\''");
    context.output.line(&format!("export MALAI_SSH_AGENT='{quoted}'"));
    Ok(DONE)
}

fn foreground(context: &Context, detached: bool) -> Outcome {
    // What whoever started us left open is no business of the commands that we run for others.
    malai_core::host::seal_inherited_files();
    let options = context.client_options()?;
    let home = malai_core::home::Home::open(options.home.clone(), malai_core::home::Create::Yes)
        .map_err(malai_core::Error::from)?;
    let log = RotatingLog::open(&home.log_file(), LOG_LIMIT)
        .map_err(|error| Failure::local(format!("open {}", home.log_file().display()), &error))?;
    crate::log::start(log, !detached);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers())
        .thread_name("malai")
        .build()
        .map_err(|error| Failure::local("start the runtime", &error))?;
    let notify_socket = context.env.notify_socket.clone();
    let outcome = runtime.block_on(async move {
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
        // A terminal that goes away must not take a daemon in the foreground of a supervisor with it.
        let _hang_up = signal(tokio::signal::unix::SignalKind::hangup())?;
        let stop = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let ready = move || {
            if let Some(socket) = notify_socket
                && let Err(error) = daemonize::notify_ready(&socket)
            {
                tracing::warn!(%error, "the supervisor could not be told of readiness");
            }
            if detached {
                daemonize::say_ready();
            }
        };
        run(DaemonOptions { client: options }, ready, stop).await?;
        Ok(DONE)
    });
    // A thread may wait for ever for a home on a network that is gone, or for a directory of users.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Threads that the daemon's tasks share: one for two cores. Each request goes from task to task, and a task that is
/// handed to another thread waits for that to wake up; the other cores are for the programs that run.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, MOST_WORKERS)
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    tokio::signal::unix::signal(kind).map_err(|error| Failure::local("listen for signals", &error))
}

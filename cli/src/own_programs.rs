//! The names by which this program is something else than the command line: what malai starts for itself.

use std::process::ExitCode;

use malai_core::terminal::{Begun, SESSION_PROGRAM, SessionHost};

/// Does what the program's name says; `None` if it is the command line.
pub(crate) fn run() -> Option<ExitCode> {
    match std::env::args_os().next()?.to_str()? {
        SESSION_PROGRAM => Some(session()),
        _ => None,
    }
}

/// The process of one session: small, with one thread.
fn session() -> ExitCode {
    let host = match SessionHost::begin() {
        Begun::Session(host) => host,
        Begun::Leave(code) => return code,
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(host.run());
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

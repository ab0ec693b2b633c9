//! The tokio runtime that everything works on.
//!
//! It is ours, one for the process, and it is never dropped:
//! - The host's executor polls only a handle to the work, which needs no tokio around it. So UniFFI's
//!   `async_runtime = "tokio"` is not used: it would poll the core's futures, encryption and all, on whatever
//!   thread the host awaits on, which in an app is often the one that draws; and what they spawn would share
//!   one thread.
//! - One for each `Malai` would have to be dropped with it, and a runtime that is dropped on one of its own
//!   threads panics. An idle thread costs less than that risk.
//! - Dropping a host's future does not drop the work by itself, so each call says what it wants: see
//!   [`Engine`](crate::engine::Engine).

use std::sync::OnceLock;

use malai_core::model::code::ErrorCode;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::MalaiError;

/// Two keep a bulk transfer and everything else apart; more would be idle.
const THREADS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Returns the runtime, made at the first call.
pub(crate) fn runtime() -> Result<&'static Handle, MalaiError> {
    if RUNTIME.get().is_none() {
        let made =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("malai").enable_all().build();
        let made = made.map_err(|error| {
            MalaiError::made(ErrorCode::Internal, format!("start malai's threads: {error}"))
        })?;
        if let Err(second) = RUNTIME.set(made) {
            // Another thread was faster.
            second.shutdown_background();
        }
    }
    match RUNTIME.get() {
        Some(runtime) => Ok(runtime.handle()),
        None => Err(MalaiError::made(ErrorCode::Internal, "start malai's threads".to_owned())),
    }
}

//! Real malai homes and real processes for tests, the demo and the benchmarks.
//!
//! A [`TestNet`] is a folder with a runtime directory of its own, so that its homes find each other and nobody else. A
//! [`TestHome`] is one device in it. Every process starts with a cleared environment, in a process group that is killed
//! when its handle is dropped; every wait has a deadline and awaits a condition. When a test panics, the logs of its net
//! are printed.
//!
//! This crate knows malai by its command line and its files only. It does not link the product.
#![cfg(unix)]

mod cluster;
mod daemon;
mod home;
mod invocation;
mod link;
mod net;
mod process;
mod skip;
mod terminal;
mod user;
mod wait;

pub use cluster::{Cluster, Member};
pub use daemon::Daemon;
pub use home::TestHome;
pub use invocation::Invocation;
pub use link::UdpLink;
pub use net::TestNet;
pub use nix::sys::signal::Signal;
pub use process::{Output, Running};
pub use skip::not_run;
pub use terminal::{Terminal, TerminalCommand};
pub use user::{TestUser, is_root};
pub use wait::{await_some, await_until};

use std::time::Duration;

/// How long a command may take unless a test says otherwise: generous, since a loaded machine of two cores is no defect.
pub const DEADLINE: Duration = Duration::from_secs(60);

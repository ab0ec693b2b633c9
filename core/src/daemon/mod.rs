//! The one background process of a home: its lock, its socket, its log, and an orderly end.

mod error;
mod log;
mod open;
mod run;
mod socket;

pub use error::DaemonError;
pub use log::RotatingLog;
pub use run::{DaemonOptions, run};

//! `malai keygen`: a key pair for whoever wants one by hand.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Context, Outcome};
use crate::error::Failure;
use crate::output::DONE;

pub(crate) fn keygen(context: &Context, file: Option<&Path>) -> Outcome {
    let secret = malai_core::identity::make_secret_key().map_err(malai_core::Error::from)?;
    match file {
        Some(path) => {
            let written =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(
                    |mut file| writeln!(file, "{}", *secret.to_hex()).and_then(|()| file.sync_all()),
                );
            written.map_err(|error| Failure::local(format!("write {}", path.display()), &error))?;
        }
        // To a pipe or a file that the user chose: this is what was asked for.
        None => context.output.line(&secret.to_hex()),
    }
    context.output.note(&secret.id52().to_string());
    Ok(DONE)
}

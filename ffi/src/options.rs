//! What an app chooses when it opens a home.

use std::path::PathBuf;
use std::time::Duration;

use malai_core::api::ClientOptions;
use malai_core::model::code::ErrorCode;

use crate::MalaiError;

/// How a home is opened. Nothing is read from the environment: what is absent here has the value that is
/// written here.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct MalaiOptions {
    /// A directory of this user alone, in which processes on this device find each other without a network.
    /// Absent: they do not. The command line uses `$XDG_RUNTIME_DIR/malai`; a phone's app needs none.
    #[uniffi(default = None)]
    pub runtime_dir: Option<String>,
    /// How long reaching a machine may take, in milliseconds. Absent: 5,000.
    #[uniffi(default = None)]
    pub connect_timeout_ms: Option<u32>,
}

impl MalaiOptions {
    pub(crate) fn for_home(self, home: String) -> Result<ClientOptions, MalaiError> {
        if home.is_empty() {
            return Err(MalaiError::made(ErrorCode::Usage, "open a home: its path is empty".to_owned()));
        }
        let mut options = ClientOptions::new(PathBuf::from(home));
        options.runtime_dir = self.runtime_dir.map(PathBuf::from);
        match self.connect_timeout_ms {
            Some(0) => {
                let message = "use connect_timeout_ms = 0: at least 1".to_owned();
                return Err(MalaiError::made(ErrorCode::Usage, message));
            }
            Some(timeout) => options.connect_timeout = Duration::from_millis(timeout.into()),
            None => {}
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let no_time = MalaiOptions { connect_timeout_ms: Some(0), ..MalaiOptions::default() };
        for (home, options) in [("", MalaiOptions::default()), ("/tmp/home", no_time)] {
            let refused = options.for_home(home.to_owned()).err();
            assert!(
                matches!(&refused, Some(MalaiError::InvalidInput { code, .. }) if code == "usage"),
                "{refused:?}"
            );
        }
    }
}

//! Log lines: `2025-01-15T10:30:45Z [INFO] [company] [cluster-manager] Config distributed to 3 machines`.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Mutex;

use malai_core::daemon::RotatingLog;
use malai_core::model::text::escape_control;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Sends what happens to the log, and to stderr too when a person or a supervisor watches.
pub(crate) fn start(log: RotatingLog, to_stderr: bool) {
    let lines = LogLines { log: Mutex::new(log), to_stderr };
    let filter = Targets::new()
        // What the network below us complains of again and again would drown our own words.
        .with_default(LevelFilter::ERROR)
        .with_target("malai", LevelFilter::INFO)
        .with_target("malai_core", LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // It fails only if there is one already, and this is the first thing that a daemon does.
    _ = tracing::subscriber::set_global_default(subscriber);
}

struct LogLines {
    log: Mutex<RotatingLog>,
    to_stderr: bool,
}

#[derive(Default)]
struct Fields {
    message: String,
    cluster: Option<String>,
    role: Option<String>,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What a peer chose may be among the values.
        let text = format!("{value:?}");
        let text = escape_control(&text);
        match field.name() {
            "message" => self.message = text.into_owned(),
            "cluster" => self.cluster = Some(text.into_owned()),
            "role" => self.role = Some(text.trim_matches('"').to_owned()),
            name => _ = write!(self.rest, " {name}={text}"),
        }
    }
}

impl<S: Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let mut line = format!("{now} [{}]", event.metadata().level());
        for part in [fields.cluster, fields.role].into_iter().flatten() {
            _ = write!(line, " [{part}]");
        }
        _ = writeln!(line, " {}{}", fields.message, fields.rest);
        // A full disk must not stop the daemon; there is nowhere left to complain.
        _ = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line.as_bytes());
        if self.to_stderr {
            _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// Stderr for `-v`: a write is a line, and what a peer put into it does nothing to the terminal.
pub(crate) struct Shown;

impl std::io::Write for Shown {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().lock().write_all(shown(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    escape_control(text).into_owned() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_v_does_nothing_to_the_terminal() {
        let line = "DEBUG lost reason=\u{9b}31m\r\n\u{202e}x\n";
        assert_eq!(shown(line.as_bytes()), "DEBUG lost reason=\\u{9b}31m\\r\\n\\u{202e}x\n");
    }
}

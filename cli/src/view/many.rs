//! What `malai run` shows: lines with their machine before them, or JSON; and the summary.

use std::collections::BTreeMap;
use std::fmt::Write;

use malai_core::api::{
    LinePart, ManyEnd, ManyEvent, ManySummary, OutputStream, SelectedMachine, TargetOutcome,
};
use malai_core::model::text::escape_control;
use serde_json::json;

use crate::output::json_line;

/// How many machines of one outcome the summary names.
const NAMED: usize = 8;
/// The colours that machines take turns with.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) json: bool,
    pub(crate) stdout_colour: bool,
    pub(crate) stderr_colour: bool,
}

/// Collects what happens as text.
pub(crate) struct Report {
    style: Style,
    /// As they are written in full, and as the summary calls them.
    names: Vec<(String, String)>,
    width: usize,
    blocks: Blocks,
    ended: BTreeMap<TargetOutcome, Vec<(usize, ManyEnd)>>,
    summary: ManySummary,
    begun: std::time::Instant,
}

/// Whole lines, ready to be written.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Report {
    pub(crate) fn new(targets: &[SelectedMachine], style: Style) -> Self {
        let one_cluster = targets.windows(2).all(|pair| pair[0].cluster == pair[1].cluster);
        let names: Vec<(String, String)> = targets
            .iter()
            .map(|target| {
                let full = target.to_string();
                let short = if one_cluster { target.name.to_string() } else { full.clone() };
                (full, short)
            })
            .collect();
        let width = names.iter().map(|(full, _)| full.len()).max().unwrap_or(0);
        Self {
            style,
            names,
            width,
            blocks: Blocks::default(),
            ended: BTreeMap::new(),
            summary: ManySummary::default(),
            begun: std::time::Instant::now(),
        }
    }

    /// Adds what happened.
    pub(crate) fn add(&mut self, event: &ManyEvent) {
        if let ManyEvent::Ended { target, end } = event {
            self.summary.count(end.outcome);
            self.ended.entry(end.outcome).or_default().push((*target, end.clone()));
        }
        if self.style.json { self.add_json(event) } else { self.add_lines(event) }
    }

    fn add_json(&mut self, event: &ManyEvent) {
        let name = |target: &usize| self.names.get(*target).map_or("", |(full, _)| full);
        let value = match event {
            ManyEvent::Started { target } => json!({ "event": "start", "target": name(target) }),
            ManyEvent::Line { target, stream, text, part } => {
                let event = match stream {
                    OutputStream::Stdout => "stdout",
                    OutputStream::Stderr => "stderr",
                };
                let lossy = String::from_utf8_lossy(text);
                let mut value = json!({ "event": event, "target": name(target), "text": lossy });
                if matches!(lossy, std::borrow::Cow::Owned(_)) {
                    value["base64"] = data_encoding::BASE64.encode(text).into();
                }
                match part {
                    LinePart::Line => {}
                    LinePart::Cut => value["part"] = "cut".into(),
                    LinePart::Unended => value["part"] = "unended".into(),
                }
                value
            }
            ManyEvent::Ended { target, end } => {
                let mut value = serde_json::to_value(end).unwrap_or_default();
                value["event"] = "end".into();
                value["target"] = name(target).into();
                value
            }
        };
        self.push_json(value);
    }

    fn push_json(&mut self, value: serde_json::Value) {
        _ = writeln!(self.blocks.stdout, "{}", json_line(value));
    }

    fn add_lines(&mut self, event: &ManyEvent) {
        match event {
            ManyEvent::Started { .. } => {}
            ManyEvent::Line { target, stream, text, .. } => {
                let text = String::from_utf8_lossy(text);
                // A line that rewrote itself becomes several: nothing of it is lost, and nothing is overwritten.
                let text = text.strip_suffix('\r').unwrap_or(&text);
                let mut pieces = text.split('\r').filter(|piece| !piece.is_empty()).peekable();
                if pieces.peek().is_none() {
                    self.push_line(*target, *stream, "");
                }
                for piece in pieces {
                    self.push_line(*target, *stream, piece);
                }
            }
            ManyEvent::Ended { target, end } => {
                if let Some(error) = &end.error {
                    let text = format!("error: failed to {}", error.message.replace(['\r', '\n', '\t'], " "));
                    self.push_line(*target, OutputStream::Stderr, &text);
                }
            }
        }
    }

    fn push_line(&mut self, target: usize, stream: OutputStream, text: &str) {
        let name = self.names.get(target).map_or("", |(full, _)| full);
        let (block, colour) = match stream {
            OutputStream::Stdout => (&mut self.blocks.stdout, self.style.stdout_colour),
            OutputStream::Stderr => (&mut self.blocks.stderr, self.style.stderr_colour),
        };
        let width = self.width;
        _ = match colour {
            true => write!(block, "\x1b[{}m{name:<width$} |\x1b[0m ", COLOURS[target % COLOURS.len()]),
            false => write!(block, "{name:<width$} | "),
        };
        for (number, piece) in text.split('\t').enumerate() {
            if number > 0 {
                block.push('\t');
            }
            block.push_str(&escape_control(piece));
        }
        block.push('\n');
    }

    /// Takes what was collected.
    pub(crate) fn take(&mut self) -> Blocks {
        std::mem::take(&mut self.blocks)
    }

    /// Whether every machine's program ended with status 0.
    pub(crate) fn all_ok(&self) -> bool {
        self.summary.ok == self.names.len()
    }

    /// The last line, and whether it belongs on stdout.
    pub(crate) fn end(&mut self) -> (bool, String) {
        if !self.style.json {
            return (false, self.summary() + "\n");
        }
        let mut value = serde_json::to_value(self.summary).unwrap_or_default();
        value["event"] = "summary".into();
        value["elapsed_ms"] = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).into();
        self.push_json(value);
        (true, self.take().stdout)
    }

    /// How many went how, and which did not go well.
    pub(crate) fn summary(&self) -> String {
        let words = [
            (TargetOutcome::Ok, "ok"),
            (TargetOutcome::Failed, "failed"),
            (TargetOutcome::Denied, "denied"),
            (TargetOutcome::Unreachable, "unreachable"),
            (TargetOutcome::TimedOut, "timed out"),
            (TargetOutcome::Cancelled, "cancelled"),
        ];
        let mut parts = Vec::new();
        for (outcome, word) in words {
            let Some(ended) = self.ended.get(&outcome) else { continue };
            let mut part = format!("{} {word}", ended.len());
            if outcome != TargetOutcome::Ok {
                _ = write!(part, " ({})", self.names_of(ended));
            }
            parts.push(part);
        }
        let left = self.names.len() - self.summary.total();
        if left > 0 {
            parts.push(format!("{left} not known"));
        }
        parts.join(", ")
    }

    fn names_of(&self, ended: &[(usize, ManyEnd)]) -> String {
        let mut ended: Vec<&(usize, ManyEnd)> = ended.iter().collect();
        ended.sort_by_key(|(target, _)| *target);
        let mut named: Vec<String> = ended
            .iter()
            .take(NAMED)
            .map(|(target, end)| {
                let name = self.names.get(*target).map_or("", |(_, short)| short);
                match (end.signal, end.status) {
                    (Some(signal), _) => format!("{name}: signal {signal}"),
                    (None, Some(status)) => format!("{name}: status {status}"),
                    (None, None) => name.to_owned(),
                }
            })
            .collect();
        if ended.len() > NAMED {
            named.push(format!("and {} more", ended.len() - NAMED));
        }
        named.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use malai_core::Bytes;
    use malai_core::api::SCHEMA;

    use super::*;

    fn machine(name: &str, cluster: &str) -> SelectedMachine {
        SelectedMachine {
            cluster: cluster.parse().expect("an alias"),
            name: name.parse().expect("a name"),
            id52: malai_core::model::id::SecretKey::from_bytes(&[7; 32]).id52(),
        }
    }

    fn report(json: bool) -> Report {
        let style = Style { json, stdout_colour: false, stderr_colour: false };
        Report::new(&[machine("db", "company"), machine("web01", "company")], style)
    }

    fn line(target: usize, text: &[u8]) -> ManyEvent {
        let text = Bytes::copy_from_slice(text);
        ManyEvent::Line { target, stream: OutputStream::Stdout, text, part: LinePart::Line }
    }

    fn ended(target: usize, outcome: TargetOutcome, status: Option<u8>) -> ManyEvent {
        let end = ManyEnd { outcome, status, signal: None, error: None, started: true, elapsed_ms: 1 };
        ManyEvent::Ended { target, end }
    }

    fn stdout(report: &mut Report) -> String {
        report.take().stdout
    }

    #[test]
    fn lines_stand_behind_their_machine_and_do_nothing_to_the_terminal() {
        let mut report = report(false);
        for text in [&b"one\ttwo"[..], b"\x1b]0;x\x07\xff", b"10%\r20%\r\r", b"", b"dos\r"] {
            report.add(&line(0, text));
        }
        report.add(&line(1, b"here"));
        let expected = "db.company    | one\ttwo\n\
                        db.company    | \\u{1b}]0;x\\u{7}\u{fffd}\n\
                        db.company    | 10%\n\
                        db.company    | 20%\n\
                        db.company    | \n\
                        db.company    | dos\n\
                        web01.company | here\n";
        assert_eq!(stdout(&mut report), expected);
    }

    #[test]
    fn the_summary_counts_and_names_what_did_not_go_well() {
        let mut report = report(false);
        report.add(&ended(1, TargetOutcome::Failed, Some(2)));
        assert_eq!(report.summary(), "1 failed (web01: status 2), 1 not known");
        report.add(&ended(0, TargetOutcome::Ok, Some(0)));
        assert_eq!(report.summary(), "1 ok, 1 failed (web01: status 2)");
        assert!(!report.all_ok());
    }

    #[test]
    fn machines_of_several_clusters_are_named_in_full() {
        let style = Style { json: false, stdout_colour: true, stderr_colour: false };
        let mut report = Report::new(&[machine("web01", "company"), machine("web01", "ft")], style);
        report.add(&ended(1, TargetOutcome::Denied, None));
        report.add(&ended(0, TargetOutcome::TimedOut, None));
        assert_eq!(report.summary(), "1 denied (web01.ft), 1 timed out (web01.company)");
        report.add(&line(1, b"x"));
        assert_eq!(stdout(&mut report), "\x1b[33mweb01.ft      |\x1b[0m x\n");
    }

    #[test]
    fn json_keeps_what_is_no_text_in_base64() {
        let mut report = report(true);
        report.add(&line(0, b"a\xffb"));
        let value: serde_json::Value = serde_json::from_str(&stdout(&mut report)).expect("JSON");
        let expected = json!({
            "schema": SCHEMA, "event": "stdout", "target": "db.company", "text": "a\u{fffd}b", "base64": "Yf9i",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn json_lines_do_nothing_to_the_terminal_and_say_what_was_said() {
        let mut report = report(true);
        let said = "\u{9b}31m\u{7f}\x1b[1m\u{202e}\u{e0041}é";
        report.add(&line(0, said.as_bytes()));
        let shown = stdout(&mut report);
        assert!(shown.ends_with('\n'), "{shown:?}");
        assert_eq!(
            shown.trim_end().chars().filter(|c| c.is_control() || *c == '\u{202e}').count(),
            0,
            "{shown:?}"
        );
        let value: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(value["text"], said);
    }
}

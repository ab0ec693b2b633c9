//! Sessions as lines for people.

use malai_core::api::{SessionView, SessionsView};
use malai_core::model::text::escape_control;
use malai_core::model::wire::CommandEnd;

use super::table;

/// The longest title or command that a line shows, in characters.
const LONGEST: usize = 60;

pub(crate) fn sessions(found: &SessionsView) -> Vec<String> {
    if found.sessions.is_empty() {
        return vec![format!("no sessions of yours on {}", found.machine)];
    }
    let mut rows = vec![
        ["SESSION", "STATE", "STARTED", "ACTIVE", "USER", "SIZE", "PROGRAM"].map(str::to_owned).to_vec(),
    ];
    rows.extend(found.sessions.iter().map(|session| {
        vec![
            session.session.to_string(),
            state(session),
            format!("{:.0}", session.started),
            format!("{:.0}", session.active),
            escape_control(&session.user).into_owned(),
            format!("{}x{}", session.window.columns, session.window.rows),
            program(session),
        ]
    }));
    table(&rows)
}

fn state(session: &SessionView) -> String {
    let state = match (&session.ended, session.attached) {
        (Some(CommandEnd::Exited { status }), _) => format!("ended {status}"),
        (Some(CommandEnd::Killed { signal }), _) => format!("killed {signal}"),
        (None, true) => "attached".to_owned(),
        (None, false) => "detached".to_owned(),
    };
    match session.watchers {
        0 => state,
        watchers => format!("{state}+{watchers}"),
    }
}

/// The program, and what it calls itself. Both are a peer's.
fn program(session: &SessionView) -> String {
    let program =
        if session.argv.is_empty() { "(shell)".to_owned() } else { shorten(&session.argv.join(" ")) };
    if session.title.is_empty() {
        program
    } else {
        format!("{program}  \u{201c}{}\u{201d}", shorten(&session.title))
    }
}

fn shorten(text: &str) -> String {
    let text = escape_control(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

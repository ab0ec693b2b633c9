//! Data as lines for people. Text that a peer chose is escaped.

mod audit;
pub(crate) mod many;
mod session;

use std::fmt::Write;

use malai_core::api::{
    ClusterView, DoctorView, InfoView, InviteView, JoinedView, RescanView, RoleView, Severity, StatusView,
    SyncView,
};
use malai_core::model::text::escape_control;

pub(crate) use self::audit::{check as audit_check, line as audit_line};
pub(crate) use self::session::sessions;

fn role(role: RoleView) -> &'static str {
    match role {
        RoleView::Manager => "manager",
        RoleView::Machine => "machine",
        RoleView::Waiting => "waiting for its first config",
    }
}

/// Aligns columns by their widest cell.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                _ = write!(line, "{cell:<width$}  ");
            }
            line.truncate(line.trim_end().len());
            line
        })
        .collect()
}

pub(crate) fn cluster_list(clusters: &[ClusterView]) -> Vec<String> {
    let rows: Vec<_> = clusters
        .iter()
        .map(|cluster| {
            let name = cluster.machine.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            vec![cluster.alias.to_string(), role(cluster.role).to_owned(), name, cluster.id52.to_string()]
        })
        .collect();
    if clusters.is_empty() { vec!["no clusters".to_owned()] } else { table(&rows) }
}

pub(crate) fn invites(invites: &[InviteView]) -> Vec<String> {
    let mut rows = vec![["LABEL", "STATE", "USES", "EXPIRES", "ID52"].map(str::to_owned).to_vec()];
    rows.extend(invites.iter().map(|invite| {
        vec![
            invite
                .label
                .as_deref()
                .map_or_else(|| "-".to_owned(), |label| escape_control(label).into_owned()),
            invite.state.clone(),
            format!("{}/{}", invite.uses, invite.max_uses),
            format!("{:.0}", invite.expires),
            invite.id52.to_string(),
        ]
    }));
    if invites.is_empty() { vec!["no invites".to_owned()] } else { table(&rows) }
}

pub(crate) fn revoked(invites: &[InviteView]) -> Vec<String> {
    invites.iter().map(|invite| format!("revoked {}", invite.id52)).collect()
}

pub(crate) fn joined(joined: &JoinedView) -> String {
    let mut text = String::new();
    if let Some(paste) = &joined.paste {
        _ = write!(
            text,
            "Above is this machine's id52. The manager adds this to cluster.toml and runs `malai rescan`:\n\n{paste}\n\
             Then `malai daemon` here."
        );
    } else if let Some(error) = &joined.waiting {
        _ = write!(
            text,
            "The manager did not answer ({}). Identity and invite are kept: `malai daemon` here tries until the \
             invite expires.",
            escape_control(&error.message)
        );
    } else {
        let name = joined.machine.as_ref().map_or("-", |name| name.as_str());
        _ = write!(
            text,
            "Joined {} as {name}. It has no rights and grants none until the manager writes some.\n\
             Next, to take requests: `malai daemon`.",
            joined.alias
        );
    }
    text
}

pub(crate) fn rescanned(found: &RescanView, check: bool) -> Vec<String> {
    let names: Vec<_> = found.clusters.iter().map(|alias| alias.to_string()).collect();
    let names = if names.is_empty() { "no clusters".to_owned() } else { names.join(", ") };
    let machines = match found.deliveries {
        1 => "1 machine".to_owned(),
        count => format!("{count} machines"),
    };
    vec![if check {
        format!("valid: {names}; a rescan would send a new config to {machines}")
    } else {
        format!("in force: {names}; a new config is on its way to {machines}")
    }]
}

pub(crate) fn synced(clusters: &[SyncView]) -> Vec<String> {
    let line = |cluster: &SyncView| {
        let serial = cluster.serial.map_or_else(|| "none".to_owned(), |serial| format!("serial {serial}"));
        match (&cluster.error, cluster.changed) {
            (Some(error), _) => {
                format!("{}: {} ({serial} in force)", cluster.alias, escape_control(&error.message))
            }
            (None, true) => format!("{}: new config, {serial}", cluster.alias),
            (None, false) => format!("{}: up to date, {serial}", cluster.alias),
        }
    };
    if clusters.is_empty() {
        vec!["no clusters to ask for".to_owned()]
    } else {
        clusters.iter().map(line).collect()
    }
}

pub(crate) fn info(info: &InfoView) -> Vec<String> {
    let daemon = info.daemon.map_or_else(|| "not running".to_owned(), |pid| format!("running, pid {pid}"));
    let mut lines = vec![
        format!("malai {}", info.version),
        format!("home:    {}", info.home),
        format!("daemon:  {daemon}"),
    ];
    if info.clusters.is_empty() {
        lines.push("clusters: none; `malai cluster init <name>` makes one, `malai machine init <invite> <name>` joins one".to_owned());
    }
    for cluster in &info.clusters {
        lines.push(String::new());
        lines.push(format!("{} ({})", cluster.alias, role(cluster.role)));
        lines.push(format!("  this device  {}", cluster.id52));
        let manager =
            cluster.manager.map_or_else(|| "not known yet".to_owned(), |manager| manager.to_string());
        lines.push(format!("  manager      {manager}"));
        if let Some(name) = &cluster.machine {
            lines.push(format!("  name         {name}"));
        }
        if let Some(serial) = cluster.serial {
            lines.push(format!("  config       serial {serial}"));
        }
        if cluster.machines.is_empty() {
            lines.push("  machines     none yet that this device may reach".to_owned());
        }
        let rows: Vec<_> = cluster
            .machines
            .iter()
            .map(|machine| {
                let mut row = vec![format!("  {}", machine.name), machine.id52.to_string()];
                if let Some(sync) = &machine.sync {
                    row.push(format!("{} {}", sync.status, sync.serial));
                    row.extend(sync.last_error.as_ref().map(|error| format!("({})", escape_control(error))));
                }
                row
            })
            .collect();
        lines.extend(table(&rows));
    }
    lines
}

/// A number of bytes, short.
fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut shown = format!("{count} B");
    for unit in units {
        value /= 1024.0;
        if value < 1.0 {
            break;
        }
        shown = format!("{value:.1} {unit}");
    }
    shown
}

pub(crate) fn doctor(found: &DoctorView, colour: bool) -> Vec<String> {
    let mut lines = vec![format!("malai {}, home {}", found.version, found.home)];
    for finding in &found.findings {
        let (word, code) = match finding.severity {
            Severity::Ok => ("ok", "32"),
            Severity::Warning => ("warning", "33"),
            Severity::Problem => ("problem", "31"),
        };
        let painted = if colour { format!("\x1b[{code}m{word:<7}\x1b[0m") } else { format!("{word:<7}") };
        lines.push(format!("{painted}  {:<8}  {}", finding.about, escape_control(&finding.what)));
        if let Some(cure) = &finding.cure {
            lines.push(format!("{:<19}→ {}", "", escape_control(cure)));
        }
    }
    let count = |severity| found.findings.iter().filter(|finding| finding.severity == severity).count();
    lines.push(format!("problems: {}, warnings: {}", count(Severity::Problem), count(Severity::Warning)));
    lines
}

pub(crate) fn status(status: &StatusView) -> Vec<String> {
    let mut lines = vec![
        format!("malai {} daemon, pid {}, since {:.0}", status.version, status.pid, status.started),
        format!("requests running: {}", status.running),
        "listening:".to_owned(),
    ];
    let listening: Vec<_> = status
        .listening
        .iter()
        .map(|listen| {
            vec![
                format!("  {}", listen.cluster),
                listen.purpose.clone(),
                listen.addresses.join(" "),
                listen.id52.to_string(),
            ]
        })
        .collect();
    lines.extend(table(&listening));
    lines.push("connections:".to_owned());
    let connections: Vec<_> = status
        .connections
        .iter()
        .map(|connection| {
            let name = connection.name.clone().unwrap_or_else(|| connection.peer.short());
            vec![
                format!("  {}.{}", name, connection.cluster),
                connection.direction.clone(),
                if connection.relayed { "relayed" } else { "direct" }.to_owned(),
                connection.address.clone(),
                format!("{:.1} ms", connection.rtt_us as f64 / 1000.0),
                format!("{} out, {} in", bytes(connection.sent), bytes(connection.received)),
                match connection.streams {
                    1 => "1 stream".to_owned(),
                    count => format!("{count} streams"),
                },
                connection.since.map_or_else(String::new, |since| format!("since {since:.0}")),
            ]
        })
        .collect();
    lines.extend(table(&connections));
    if !status.carried.is_empty() {
        lines.push("carried for commands:".to_owned());
    }
    let carried: Vec<_> = status
        .carried
        .iter()
        .map(|stream| {
            let name = stream.name.as_ref().map_or_else(|| stream.peer.short(), ToString::to_string);
            let pid = stream.pid.map_or_else(|| "-".to_owned(), |pid| format!("pid {pid}"));
            vec![format!("  {name}.{}", stream.cluster), pid, format!("since {:.0}", stream.since)]
        })
        .collect();
    lines.extend(table(&carried));
    lines
}

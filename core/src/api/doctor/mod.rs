//! What is wrong with this device, and what to do about it.
//!
//! Looks at everything that malai stands on, one thing after the other, and never stops at the first that is wrong.

mod files;
mod machines;
mod system;

use malai_model::code::ErrorCode;
use malai_model::diagnostic::Diagnostic;

use super::{ClientOptions, DoctorView, Finding, Severity};
use crate::home::{Create, Home, HomeError};
use crate::node::load_device;

/// Looks at a home, the system beneath it and the machines that can be reached from here. Changes nothing.
///
/// Takes some seconds at most: everything that may not answer has a deadline.
pub async fn doctor(options: ClientOptions) -> DoctorView {
    let mut findings = Findings::default();
    let shown = options.home.display().to_string();
    let keys = options.keys.clone();
    let clock = std::sync::Arc::clone(&options.clock);
    match Home::open(options.home.clone(), Create::No) {
        Ok(home) => {
            findings.ok("home", format!("{shown} is this user's alone"));
            files::look_at_modes(&home, &mut findings);
            let device = match load_device(&home) {
                Ok((device, warnings)) => {
                    findings.diagnostics("config", &warnings);
                    Some(device)
                }
                Err(error) => {
                    findings.failure("config", error.to_string(), error.code(), error.hint());
                    findings.diagnostics("config", &error.diagnostics());
                    None
                }
            };
            let keys =
                keys.unwrap_or_else(|| std::sync::Arc::new(crate::identity::FileKeyStore::new(home.clone())));
            let clusters = files::look_at_clusters(&home, keys.as_ref(), clock.as_ref(), &mut findings);
            #[cfg(all(feature = "daemon", unix))]
            look_at_daemon(&home, &options, &clusters, &mut findings).await;
            system::look_at_clock(&home, clock.as_ref(), &mut findings);
            system::look_at_udp(device.as_ref().map(|device| &device.network), &mut findings).await;
            if let Some(device) = &device {
                system::look_at_relays(&device.network.relays, &mut findings).await;
            }
            #[cfg(unix)]
            system::look_at_limits(&home, &mut findings);
            if device.is_some() {
                machines::look_at_machines(options, &clusters, &mut findings).await;
            }
        }
        Err(error @ HomeError::Absent { .. }) => findings.add(
            Severity::Warning,
            "home",
            format!("there is no home at {shown}: malai was not used yet"),
            Some("malai cluster init <name>, or malai machine init <invite> <name>".to_owned()),
            Some(error.code()),
        ),
        Err(error) => findings.failure("home", error.to_string(), error.code(), error.hint()),
    }
    DoctorView { version: crate::VERSION.to_owned(), home: shown, findings: findings.0 }
}

/// Collects what is found.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        about: &str,
        what: String,
        cure: Option<String>,
        code: Option<ErrorCode>,
    ) {
        // A hint that is a command says so in front.
        let cure = cure.map(|cure| cure.strip_prefix("run: ").map_or(cure.clone(), str::to_owned));
        self.0.push(Finding { severity, about: about.to_owned(), what, cure, code });
    }

    fn ok(&mut self, about: &str, what: String) {
        self.add(Severity::Ok, about, what, None, None);
    }

    fn warning(&mut self, about: &str, what: String, cure: String) {
        self.add(Severity::Warning, about, what, Some(cure), None);
    }

    fn problem(&mut self, about: &str, what: String, cure: String) {
        self.add(Severity::Problem, about, what, Some(cure), None);
    }

    /// Something that malai fails with, in the words of its error.
    fn failure(&mut self, about: &str, what: String, code: ErrorCode, hint: Option<String>) {
        self.add(Severity::Problem, about, format!("malai fails to {what}"), hint, Some(code));
    }

    fn diagnostics(&mut self, about: &str, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            let severity = if diagnostic.is_error() { Severity::Problem } else { Severity::Warning };
            let place =
                diagnostic.position.map_or_else(String::new, |at| format!(":{}:{}", at.line, at.column));
            let what = format!("{}{place}: {}", diagnostic.file, diagnostic.message);
            self.add(severity, about, what, diagnostic.hint.clone(), Some(ErrorCode::ConfigInvalid));
        }
    }
}

/// The lock and the socket: does a daemon run, does it answer, is it of this version?
#[cfg(all(feature = "daemon", unix))]
async fn look_at_daemon(
    home: &Home,
    options: &ClientOptions,
    clusters: &[crate::cluster::LoadedCluster],
    findings: &mut Findings,
) {
    use super::{ApiReply, ApiRequest, socket};
    let path = match (&options.socket, home.socket_path(options.runtime_dir.as_deref())) {
        (Some(named), _) => named.clone(),
        (None, Ok(path)) => path,
        (None, Err(error)) => {
            return findings.failure("daemon", error.to_string(), error.code(), error.hint());
        }
    };
    let pid = home.daemon_pid();
    match (socket::connect(&path).await, pid) {
        (Ok(Some(stream)), _) => match socket::ask(stream, &ApiRequest::Info {}).await {
            Ok(ApiReply::Info(info)) if info.version == crate::VERSION => {
                let pid = info.daemon.map_or_else(String::new, |pid| format!(", pid {pid}"));
                findings.ok("daemon", format!("it runs{pid}, malai {}", info.version));
            }
            Ok(ApiReply::Info(info)) => findings.warning(
                "daemon",
                format!("the daemon is malai {}, and this is malai {}", info.version, crate::VERSION),
                restart(info.daemon),
            ),
            Ok(_) => {
                findings.problem("daemon", "it answers in a way that is not known".to_owned(), restart(pid))
            }
            Err(error) => findings.failure("daemon", error.to_string(), error.code(), error.hint()),
        },
        (Ok(None), Some(pid)) => findings.problem(
            "daemon",
            format!("it runs, pid {pid}, but nothing listens on {}", path.display()),
            restart(Some(pid)),
        ),
        (Ok(None), None) if path.exists() => findings.warning(
            "daemon",
            format!("none runs; {} was left by one that was killed", path.display()),
            "malai daemon".to_owned(),
        ),
        (Ok(None), None) if clusters.is_empty() => findings.ok("daemon", "none runs".to_owned()),
        (Ok(None), None) => findings.warning(
            "daemon",
            "none runs: this device takes no requests and hands out no config".to_owned(),
            "malai daemon".to_owned(),
        ),
        (Err(error), _) => findings.failure("daemon", error.to_string(), error.code(), error.hint()),
    }
}

#[cfg(all(feature = "daemon", unix))]
fn restart(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("kill {pid} && malai daemon"),
        None => "malai daemon".to_owned(),
    }
}

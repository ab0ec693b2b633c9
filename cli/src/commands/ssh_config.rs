//! `malai ssh-config`: `Host` blocks for OpenSSH.

use std::path::Path;

use malai_core::api::ServiceView;
use malai_core::model::name::ClusterAlias;

use super::{Context, Outcome};
use crate::error::Failure;
use crate::output::DONE;

/// The service that is meant.
const SERVICE: &str = "ssh";

pub(crate) async fn ssh_config(context: &Context, cluster: Option<ClusterAlias>) -> Outcome {
    let client = context.client().await?;
    let mut services = client.list_services(cluster.clone()).await?;
    // Those of machines; a service with a cluster-wide name is nobody's in particular.
    services.retain(|service| host(service).is_some());
    if context.global.json {
        context.output.json(&services);
        return Ok(DONE);
    }
    let malai = std::env::current_exe().map_err(|error| Failure::local("find malai's own path", &error))?;
    // Whoever calls ssh may have another environment.
    let home = context.global.home.as_ref().or(context.env.malai_home.as_ref());
    let home = home.map(std::path::absolute).transpose();
    let home = home.map_err(|error| Failure::local("find the home directory", &error))?;
    for line in blocks(cluster.as_ref(), &services, &proxy_command(&malai, home.as_deref())?) {
        context.output.line(&line);
    }
    if services.is_empty() {
        context.output.note(
            "note: this device may reach the service ssh of no machine: see docs/guide/ssh-tools.md for the rule",
        );
    }
    Ok(DONE)
}

/// What is typed after `ssh`: `web01.company`.
fn host(service: &ServiceView) -> Option<String> {
    let machine = service.machine.as_ref()?;
    let host = format!("{machine}.{}", service.cluster);
    let is_it = service.service.as_str() == SERVICE
        && service.address == format!("{SERVICE}.{host}")
        && service.protocol.as_deref() == Some("tcp");
    is_it.then_some(host)
}

fn blocks(cluster: Option<&ClusterAlias>, services: &[ServiceView], proxy_command: &str) -> Vec<String> {
    let (words, file) = match cluster {
        Some(cluster) => (format!(" {cluster}"), format!("malai-{cluster}.conf")),
        None => (String::new(), "malai.conf".to_owned()),
    };
    let mut lines = vec![
        format!(
            "# Printed by `malai ssh-config{words}`: the machines whose ssh service this device may reach."
        ),
        format!("# To use it: malai ssh-config{words} > ~/.ssh/{file}"),
        format!("# and at the top of ~/.ssh/config: Include {file}"),
    ];
    for service in services {
        let Some(host) = host(service) else { continue };
        lines.push(String::new());
        lines.push(format!("Host {host}"));
        lines.push(format!("    HostName {host}"));
        // The host key is the machine's, whatever it is called, and wherever it is.
        lines.push(format!("    HostKeyAlias malai-{}", service.id52));
        lines.push("    CheckHostIP no".to_owned());
        lines.push("    ProxyUseFdpass no".to_owned());
        // By the service's own address: that of a machine may be a service's name, too.
        lines.push(format!("    ProxyCommand {proxy_command} stdio {}", service.address));
    }
    lines
}

/// How a shell calls malai, as ssh's configuration wants it written.
fn proxy_command(malai: &Path, home: Option<&Path>) -> Result<String, Failure> {
    let mut words = quoted(malai)?;
    if let Some(home) = home {
        words.push_str(" --home ");
        words.push_str(&quoted(home)?);
    }
    Ok(words)
}

/// One word for a shell; `%` is doubled, since ssh replaces what follows it.
fn quoted(path: &Path) -> Result<String, Failure> {
    let cannot = |what: &str| {
        Failure::usage(
            format!("write {} into a configuration of ssh: {what}", path.display()),
            "choose a path without it",
        )
    };
    let text = path.to_str().ok_or_else(|| cannot("it is no UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(cannot("it has a control character"));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@".contains(c);
    let word = match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    };
    Ok(word.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_the_shell_and_for_ssh() {
        let word = |text: &str| quoted(Path::new(text)).map_err(|failure| failure.code);
        assert_eq!(word("/usr/bin/malai").as_deref(), Ok("/usr/bin/malai"));
        assert_eq!(word("/a b/m").as_deref(), Ok("'/a b/m'"));
        assert_eq!(word("/it's/50%/$x").as_deref(), Ok(r"'/it'\''s/50%%/$x'"));
        assert!(word("/a\nHost *").is_err());
        let command =
            proxy_command(Path::new("/bin/malai"), Some(Path::new("/h m"))).expect("can be written");
        assert_eq!(command, "/bin/malai --home '/h m'");
    }
}

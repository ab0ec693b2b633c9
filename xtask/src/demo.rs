//! `demo`: three homes on this machine, real connections, one command allowed and one refused.

use std::path::{Path, PathBuf};
use std::time::Instant;

use malai_testkit::{Cluster, Output, TestNet};

use crate::out::say;
use crate::run::{Outcome, cargo, done, target_dir};

/// Runs the demo with a binary, or with one that it builds.
pub(crate) fn run(binary: Option<&Path>) -> Outcome {
    let binary = match binary {
        Some(path) => path.to_owned(),
        None => build()?,
    };
    let net = TestNet::new(binary);
    let logs = net.clone();
    let started = Instant::now();
    // The testkit tells of a failure by a panic, with the whole output of what failed in it.
    match std::panic::catch_unwind(|| play(&net)) {
        Ok(Ok(())) => {
            say!(
                "\nThe demo took {:.1} s. Its homes and its processes are gone.",
                started.elapsed().as_secs_f64()
            );
            Ok(())
        }
        Ok(Err(error)) => Err(format!("{error}\n\n{}", logs.logs())),
        Err(_) => Err(format!("the demo did not go as expected\n\n{}", logs.logs())),
    }
}

fn build() -> Outcome<PathBuf> {
    say!("Building malai (dev profile) …");
    done(cargo().args(["build", "--quiet", "--package", "malai"]))?;
    Ok(target_dir().join("debug").join("malai"))
}

fn play(net: &TestNet) -> Outcome {
    say!(
        "\nThree homes on this machine: a manager, a server web01, a laptop. Nothing but loopback is used.\n"
    );
    say!("manager$ malai cluster init company");
    say!("manager$ malai daemon");
    say!("manager$ malai cluster create-invite company --max-uses 2");
    for name in ["web01", "laptop"] {
        say!("{name}$ malai machine init <invite> company --name {name} && malai daemon");
    }
    let cluster = Cluster::new(net, &["web01", "laptop"]);
    let (web01, laptop) = (cluster.home("web01"), cluster.home("laptop"));

    say!("\nBoth are in the cluster now and may do nothing. The laptop tries all the same:\n");
    show("laptop", "web01.company id -un", laptop.malai(["web01.company", "id", "-un"]), |output| {
        output.code == Some(255) && output.stdout.is_empty()
    })?;

    say!("\nThe admin edits cluster.toml: the laptop may run `uname` on web01, whatever its arguments.\n");
    let rule = "[machine.web01.command.uname]\nallow_from = \"laptop\"\n";
    rule.lines().for_each(|line| say!("    {line}"));
    cluster.edit(|text| format!("{text}\n{rule}"));
    say!("\nmanager$ malai rescan");
    cluster.await_distributed();

    say!("\nweb01 has its new config, signed by the manager. Allowed:\n");
    let uname = String::from_utf8_lossy(
        &std::process::Command::new("uname").arg("-sm").output().map_err(|e| e.to_string())?.stdout,
    )
    .into_owned();
    show("laptop", "web01.company uname -sm", laptop.malai(["web01.company", "uname", "-sm"]), |output| {
        output.code == Some(0) && output.stdout == uname.as_bytes()
    })?;
    say!("\nStill refused, with the reason in web01's own log:\n");
    show("laptop", "web01.company id -un", laptop.malai(["web01.company", "id", "-un"]), |output| {
        output.code == Some(255) && output.stdout.is_empty() && !output.stderr.is_empty()
    })?;
    say!("\nAnd web01 may do nothing on the laptop:\n");
    show("web01", "laptop.company uname", web01.malai(["laptop.company", "uname"]), |output| {
        output.code == Some(255) && output.stdout.is_empty() && !output.stderr.is_empty()
    })
}

/// Shows a command line with its output, and compares that with what has to come.
fn show(who: &str, words: &str, output: Output, expected: impl Fn(&Output) -> bool) -> Outcome {
    say!("{who}$ malai {words}");
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    text.lines().for_each(|line| say!("    {line}"));
    say!("    (status {}, {} ms)", output.code.unwrap_or(-1), output.elapsed.as_millis());
    if expected(&output) { Ok(()) } else { Err(format!("this is not what has to come: {output:?}")) }
}

//! The database that is dumped over a link that drops: a real PostgreSQL, and the pipe that people use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use malai_testkit::{Cluster, TestUser, await_until};

use crate::{SOON, net, not_run};

/// Longer than a connection that hears nothing lives, which is 15 s.
fn away() -> Duration {
    Duration::from_secs(if crate::full() { 30 } else { 20 })
}

/// A server of a user's own, on a Unix socket alone. Dropping it stops it.
struct Postgres<'a> {
    user: &'a TestUser,
    programs: PathBuf,
    data: PathBuf,
}

impl<'a> Postgres<'a> {
    fn start(user: &'a TestUser) -> Option<Self> {
        let Some(programs) = newest_programs() else {
            not_run("PostgreSQL is not installed");
            return None;
        };
        let server = Self { user, programs, data: user.home().join("data") };
        let data = server.data.display().to_string();
        server.run("initdb", &["-D", &data, "-A", "trust", "-N", "-U", "dumper"]);
        let place = user.home().display().to_string();
        let options = format!("-c listen_addresses= -c fsync=off -k {place}");
        server.run("pg_ctl", &["-D", &data, "-w", "-l", &format!("{place}/log"), "-o", &options, "start"]);
        Some(server)
    }

    fn as_user(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let (user, group) = (self.user.name(), self.user.name());
        command.args(["--reuid", user, "--regid", group, "--clear-groups"]);
        command.arg(self.programs.join(program)).args(words);
        command.current_dir(self.user.home()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, words: &[&str]) {
        // Not `output`: a server that it starts keeps the pipes open.
        let status = self.as_user(program, words).stdout(Stdio::null()).status().expect("starts");
        assert!(status.success(), "{program} {words:?}: {status}");
    }

    /// The words that dump everything.
    fn dump(&self) -> [String; 6] {
        let program = self.programs.join("pg_dump").display().to_string();
        let place = self.user.home().display().to_string();
        [program, "-h".to_owned(), place, "-U".to_owned(), "dumper".to_owned(), "postgres".to_owned()]
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        let data = self.data.display().to_string();
        let _ = self.as_user("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]).status();
    }
}

/// Debian keeps them out of the search path, a version beside the other.
fn newest_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").is_file()).max()
}

fn digest(path: &Path) -> String {
    let output = Command::new("sh")
        .args([
            "-c",
            "gzip -dc \"$0\" | grep -v '^.\\(un\\)\\?restrict ' | sha256sum",
            &path.display().to_string(),
        ])
        .output()
        .expect("starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_database_is_dumped_whole_over_a_link_that_drops() {
    let Some(user) = TestUser::make() else { return };
    let Some(server) = Postgres::start(&user) else { return };
    let net = net();
    let Some((cluster, link)) = Cluster::linked(&net) else { return not_run("there is no IPv6 on loopback") };
    let place = user.home().display().to_string();
    // Some 80 MB that compress well, so that the link is what takes the time.
    let fill =
        "create table t as select i, repeat(md5(i::text), 20) as text from generate_series(1, 120000) i";
    server.run("psql", &["-q", "-h", &place, "-U", "dumper", "-c", fill, "postgres"]);
    let (near, far) = (net.path().join("near.gz"), net.path().join("far.gz"));
    let words = server.dump();
    let quoted = words.join(" ");
    let status = Command::new("sh")
        .args(["-c", &format!("{quoted} | gzip -1 > {}", near.display())])
        .status()
        .expect("starts");
    assert!(status.success(), "{status}");

    link.delay(Duration::from_millis(20));
    let laptop = cluster.home("laptop");
    let mut dump =
        laptop.plain_command(["web01.company"].into_iter().chain(words.iter().map(String::as_str)));
    let mut dump = dump.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut zip = Command::new("gzip")
        .arg("-1")
        .stdin(dump.stdout.take().expect("a pipe"))
        .stdout(std::fs::File::create(&far).expect("is made"))
        .spawn()
        .expect("starts");
    let so_far = || std::fs::metadata(&far).map_or(0, |meta| meta.len());
    await_until("the dump is under way", SOON, || so_far() > 200_000);
    link.cut();
    assert!(dump.try_wait().expect("is asked").is_none(), "it was over before the link dropped");
    // That nothing comes for so long is the subject.
    std::thread::sleep(away());
    link.mend();
    let ended = dump.wait().expect("ends");
    assert!(ended.success(), "{ended}");
    assert!(zip.wait().expect("ends").success());
    assert_eq!(digest(&far), digest(&near));
    let log = cluster.home("web01").read("malai.log").expect("the target has a log");
    assert!(log.contains("a request goes on over another connection"), "the connection was lost:\n{log}");
}

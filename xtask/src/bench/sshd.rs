//! An OpenSSH server of our own on loopback, set up fairly: no PAM, no DNS, a key of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Outcome, done, program, which};

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Sshd {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts a server with its files in a folder, and waits until it answers.
    pub(super) fn start(parent: &Path) -> Outcome<Self> {
        let dir = parent.join("sshd");
        let failed = |source: std::io::Error| format!("setting up sshd: {source}");
        std::fs::create_dir(&dir).map_err(failed)?;
        for name in ["host", "user"] {
            done(
                program("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
                    .arg(dir.join(name))
                    .stdout(Stdio::null()),
            )?;
        }
        if nix::unistd::geteuid().is_root() {
            // Where a server that root starts separates its privileges; a package's start-up script makes it.
            std::fs::create_dir_all("/run/sshd").map_err(failed)?;
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(failed)?.port();
        let place = dir.display();
        // Debian's bash reads ~/.bashrc for each command of a shell whose SHLVL says that sshd started it.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n\
             UsePAM no\nUseDNS no\nPasswordAuthentication no\nStrictModes no\nPidFile none\nLogLevel ERROR\n\
             SetEnv SHLVL=5\nSubsystem sftp internal-sftp\nPermitRootLogin prohibit-password\nMaxStartups 100\n"
        );
        std::fs::write(dir.join("config"), config).map_err(failed)?;
        let log = std::fs::File::create(dir.join("log")).map_err(failed)?;
        // sshd insists on an absolute path of its own.
        let sshd = which("sshd").ok_or("sshd is not installed")?;
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut server = Self { dir, port, child };
        server.await_ready()?;
        Ok(server)
    }

    fn await_ready(&mut self) -> Outcome {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().map_err(|source| format!("asking for sshd: {source}"))?;
            if ended.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("sshd does not answer: {log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Prepares `ssh` with options before the host and words after it.
    pub(super) fn ssh(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.dir)
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"])
            .args(["-o", "StrictHostKeyChecking=no", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.dir.join("known").display()))
            .arg("-i")
            .arg(self.dir.join("user"))
            .args(["-p", &self.port.to_string()])
            .args(options)
            .arg("127.0.0.1")
            .args(words);
        command
    }
}

impl Sshd {
    /// Prepares `scp`, to be given a source and a destination.
    pub(super) fn scp(&self) -> Command {
        let mut command = Command::new("scp");
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.dir)
            .args(["-q", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.dir.join("known").display()))
            .arg("-i")
            .arg(self.dir.join("user"))
            .args(["-P", &self.port.to_string()]);
        command
    }

    /// Names a path on this server, for `scp`.
    pub(super) fn remote(&self, path: &Path) -> String {
        format!("127.0.0.1:{}", path.display())
    }

    /// Opens a connection that others go through.
    pub(super) fn master(&self) -> Outcome<Master> {
        let path = self.dir.join("mux");
        let place = format!("ControlPath={}", path.display());
        let child = self
            .ssh(&["-o", "ControlMaster=yes", "-o", &place, "-N"], &[])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| format!("starting ssh's master: {source}"))?;
        let master = Master { child, place };
        let until = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            if Instant::now() > until {
                return Err("ssh's master does not come up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(master)
    }
}

/// A connection of ssh's that others go through. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Master {
    child: Child,
    place: String,
}

impl Master {
    /// The options with which `ssh` goes through it.
    pub(super) fn options(&self) -> [&str; 4] {
        ["-o", "ControlMaster=no", "-o", &self.place]
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Its connections have processes of their own, which end with their clients.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

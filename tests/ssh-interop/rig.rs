//! A cluster with a real `sshd` behind a service, and callers with and without the right to it.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use malai_testkit::{Cluster, Invocation, Output, TestHome, TestNet, await_until};

/// How long something may take that takes no time on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// web01, a laptop with rights on it, and a guest with the right to `uptime` alone.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    /// A symbolic link to malai.
    pub(crate) malai_rsh: PathBuf,
    net: TestNet,
}

impl Rig {
    /// Makes the cluster. The rules are what the guide says that each tool needs.
    pub(crate) fn new(rules: &str) -> Self {
        Self::with_machine("", rules)
    }

    /// As [`Self::new`], with lines for the section of web01 itself.
    pub(crate) fn with_machine(lines: &str, rules: &str) -> Self {
        let net = TestNet::new(env!("CARGO_BIN_EXE_malai"));
        let admitted = "[machine.web01.command.uptime]\nallow_from = \"guest\"\n";
        let cluster = Cluster::with_config(
            &net,
            &["web01", "laptop", "guest"],
            &[("web01", lines)],
            &format!("{admitted}\n{rules}"),
        );
        let malai_rsh = net.path().join("malai-rsh");
        symlink(net.binary(), &malai_rsh).expect("makes the link");
        // What a denied tool would write or take is looked for here.
        std::fs::create_dir(net.path().join("srv")).expect("makes a folder");
        Self { cluster, malai_rsh, net }
    }

    pub(crate) fn laptop(&self) -> &TestHome {
        self.cluster.home("laptop")
    }

    pub(crate) fn guest(&self) -> &TestHome {
        self.cluster.home("guest")
    }

    /// The path of malai itself.
    pub(crate) fn malai(&self) -> String {
        self.net.binary().display().to_string()
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.net.path().join(name)
    }

    /// As [`Self::path`], as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A path on the machine, as its tools write it: `web01.company:/…/srv/name`.
    pub(crate) fn remote(&self, name: &str) -> String {
        format!("web01.company:{}", self.text(name))
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("makes a folder");
        }
        std::fs::write(&path, content).expect("writes a file");
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// Runs a tool as somebody.
pub(crate) fn tool<S: AsRef<std::ffi::OsStr>>(
    home: &TestHome,
    program: &Path,
    args: impl IntoIterator<Item = S>,
) -> Invocation {
    home.command(args).program(program)
}

/// A tool that was refused: by malai's words, with a status of its own, and with nothing on stdout.
#[track_caller]
pub(crate) fn is_denied(output: &Output, status: i32) {
    assert_eq!(output.code, Some(status), "{output:?}");
    is_told(output);
}

/// As [`is_denied`], for a tool whose status depends on which of its processes ends first.
#[track_caller]
pub(crate) fn is_told(output: &Output) {
    assert!(output.code.is_some_and(|code| code != 0), "{output:?}");
    let told = output.stderr_text();
    assert!(told.contains("not allowed on web01"), "{output:?}");
    assert!(told.contains("hint: ask the cluster's manager for the right"), "{output:?}");
}

/// Bytes that no compression makes small, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A real `sshd` on loopback, with keys and a configuration of its own. Dropping it ends it.
pub(crate) struct Sshd {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts a server, and waits until it answers.
    pub(crate) fn start(sshd: &Path, ssh_keygen: &Path, dir: PathBuf) -> Self {
        std::fs::create_dir(&dir).expect("makes a folder");
        for name in ["host", "user"] {
            let made = Command::new(ssh_keygen)
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(dir.join(name))
                .stdin(Stdio::null())
                .status();
            assert!(made.is_ok_and(|status| status.success()), "ssh-keygen");
        }
        if nix::unistd::geteuid().is_root() {
            // Where a server that root starts separates its privileges; a package's start-up script makes it.
            std::fs::create_dir_all("/run/sshd").expect("makes sshd's folder");
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let place = dir.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n\
             UsePAM no\nUseDNS no\nPasswordAuthentication no\nStrictModes no\nPidFile none\nLogLevel VERBOSE\n\
             SetEnv SHLVL=5\nPermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        );
        std::fs::write(dir.join("config"), config).expect("writes sshd's configuration");
        let log = std::fs::File::create(dir.join("log")).expect("makes sshd's log");
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts sshd");
        let server = Self { dir, port, child };
        await_until("sshd to answer", SOON, || server.answers());
        server
    }

    /// Asked for by connecting, which its log then has; so it is asked by its log.
    fn answers(&self) -> bool {
        self.log().contains("Server listening on 127.0.0.1")
            && TcpStream::connect(("127.0.0.1", self.port)).is_ok_and(|mut tcp| tcp.read(&mut [0; 4]).is_ok())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        self.log().matches("Connection from ").count()
    }

    /// The rule that makes it a machine's service.
    pub(crate) fn rule(&self) -> String {
        format!("[machine.web01.tcp.ssh]\nport = {}\nallow_from = \"laptop\"\n", self.port)
    }

    /// Writes a configuration for ssh: what `malai ssh-config` prints for the laptop, and the keys.
    pub(crate) fn client_config(&self, rig: &Rig) -> String {
        let printed = rig.laptop().malai(["ssh-config", "company"]).ok();
        rig.write("hosts.conf", printed.text());
        let key = std::fs::read_to_string(self.dir.join("host.pub")).expect("sshd's key");
        // By the name that the configuration gives the key, and by no other: it is looked up there.
        let known = format!("malai-{} {key}", rig.cluster.id52("web01"));
        let known = rig.write("known_hosts", known);
        let config = format!(
            "Include {}\nHost *\n  BatchMode yes\n  IdentitiesOnly yes\n  IdentityFile {}\n  StrictHostKeyChecking yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  LogLevel ERROR\n",
            rig.text("hosts.conf"),
            self.dir.join("user").display(),
            known.display(),
        );
        rig.write("ssh_config", config).display().to_string()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Its connections have processes of their own, which end with their clients.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The guest's configuration: the same hosts, with a home of its own.
pub(crate) fn guests_config(rig: &Rig, config: &str) -> String {
    let text = std::fs::read_to_string(rig.path("hosts.conf")).expect("hosts.conf");
    let (laptop, guest) =
        (rig.laptop().path().display().to_string(), rig.guest().path().display().to_string());
    assert!(text.contains(&laptop), "the home is named: {text}");
    let hosts = rig.write("guest_hosts.conf", text.replace(&laptop, &guest)).display().to_string();
    let own =
        std::fs::read_to_string(config).expect("a configuration").replace(&rig.text("hosts.conf"), &hosts);
    rig.write("guest_config", own).display().to_string()
}

//! `ssh`'s command line, as rsync, git, scp, sftp and ansible write it.
//!
//! All letters of OpenSSH are known, with and without values, so that nothing is taken for something else. What means
//! something here is kept; what would promise something that does not happen (a forward) is refused; the rest (ciphers,
//! keys, ports, multiplexing) is about what malai does by itself, and is ignored.

use std::time::Duration;

use crate::terminal::EscapeChar;

/// Letters that stand alone.
const FLAGS: &str = "1246afgknqstvxACGKMNTVXYy";
/// Letters with a value.
const WITH_VALUE: &str = "bceilmopBDEFIJLOPQRSwW";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SshCall {
    /// What to do.
    pub(crate) action: Action,
    /// Where; absent only for [`Action::Version`].
    pub(crate) host: String,
    /// The user that was named. Nobody's to choose here: the machine's config says it.
    pub(crate) user: Option<String>,
    /// The words behind the host, as they came.
    pub(crate) command: Vec<String>,
    /// Whether the command is the name of a subsystem.
    pub(crate) subsystem: Subsystem,
    /// Whether a terminal is wanted.
    pub(crate) terminal: TerminalWish,
    /// What the command reads.
    pub(crate) stdin: Stdin,
    /// `-v`, counted.
    pub(crate) verbose: u8,
    /// No warnings.
    pub(crate) quiet: Quiet,
    /// How long connecting may take.
    pub(crate) connect_timeout: Option<Duration>,
    /// What begins a word to malai in a shell.
    pub(crate) escape: Option<EscapeChar>,
    /// Options that mean nothing here, for whoever asks with -v.
    pub(crate) ignored: Vec<String>,
    /// Settings that were made: what comes later by `-o` does not change them.
    settled: Vec<String>,
    /// `-o HostName=`.
    host_name: Option<String>,
}

/// What a call of `ssh` is for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run a command, or open a shell.
    #[default]
    Run,
    /// `-G`: print what would be done. git asks so whether it talks to an OpenSSH.
    PrintConfig,
    /// `-V`: print the version.
    Version,
}

/// `-s`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subsystem {
    /// The words are a command.
    #[default]
    No,
    /// They are a subsystem's name.
    Yes,
}

/// `-t`, `-tt`, `-T` and `RequestTTY`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminalWish {
    /// For a shell, not for a command.
    #[default]
    Auto,
    /// Never.
    Never,
    /// If stdin is one.
    Ask,
    /// In any case.
    Force,
}

/// `-n` and `StdinNull`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// This process's own.
    #[default]
    Own,
    /// Nothing.
    Empty,
}

/// `-q`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Warnings are shown.
    #[default]
    No,
    /// They are not.
    Yes,
}

/// Why a call cannot be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallProblem {
    /// No machine.
    NoHost,
    /// A letter that `ssh` does not have.
    UnknownOption(String),
    /// An option without its value.
    NoValue(String),
    /// A value that cannot be.
    BadValue {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// What the option asks for is not done here.
    Unsupported {
        /// The option.
        option: String,
        /// What to use instead.
        instead: &'static str,
    },
}

const FORWARD: &str =
    "a service in the cluster's config is what is forwarded: see `malai stdio` and docs/guide/ssh-tools.md";
const STDIO: &str = "`malai stdio <service or machine>` connects stdin and stdout to a service";
const BACKGROUND: &str = "leave it out; a shell's own `&` or `nohup` sends it to the background";
const HOST_NAME: &str = "name that machine itself: nothing here stands for another one";
const CONTROL: &str = "there is no control socket to talk to: the daemon keeps connections by itself";

/// Understands the words after `malai rsh`, as `ssh` does with `getopt`: options, the host, more options, the command.
///
/// # Errors
/// [`CallProblem`] for what is no call of `ssh`, or asks for what is not done here.
pub(crate) fn parse(words: &[String]) -> Result<SshCall, CallProblem> {
    let mut call = SshCall::default();
    let mut words = words.iter();
    let (host, ended) = call.options(&mut words)?;
    match host {
        Some(host) => call.take_host(host)?,
        None if call.action == Action::Version => {}
        None => return Err(CallProblem::NoHost),
    }
    // `--` before the host ends the options behind it, too.
    let first = if ended { words.next() } else { call.options(&mut words)?.0 };
    call.command = first.into_iter().chain(words).cloned().collect();
    call.check_host_name()?;
    Ok(call)
}

impl SshCall {
    /// Options up to the first word that is none, which is returned; and whether `--` stood before it.
    fn options<'w>(
        &mut self,
        words: &mut std::slice::Iter<'w, String>,
    ) -> Result<(Option<&'w String>, bool), CallProblem> {
        while let Some(word) = words.next() {
            if word == "--" {
                return Ok((words.next(), true));
            }
            if word.len() < 2 || !word.starts_with('-') {
                return Ok((Some(word), false));
            }
            self.option(word, words)?;
        }
        Ok((None, false))
    }

    /// One word of options: letters together, the last one's value in the word or in the next.
    fn option(&mut self, word: &str, more: &mut std::slice::Iter<'_, String>) -> Result<(), CallProblem> {
        let letters = &word[1..];
        for (at, letter) in letters.char_indices() {
            let name = format!("-{letter}");
            if FLAGS.contains(letter) {
                self.flag(letter, name)?;
            } else if WITH_VALUE.contains(letter) {
                let rest = &letters[at + letter.len_utf8()..];
                let value = match rest {
                    "" => {
                        more.next().map(String::as_str).ok_or_else(|| CallProblem::NoValue(name.clone()))?
                    }
                    rest => rest,
                };
                return self.valued(letter, name, value);
            } else {
                return Err(CallProblem::UnknownOption(name));
            }
        }
        Ok(())
    }

    fn flag(&mut self, letter: char, name: String) -> Result<(), CallProblem> {
        // A letter counts wherever it stands, an -o only if nothing was said before.
        let settles = match letter {
            'n' => Some("stdinnull"),
            'q' => Some("loglevel"),
            's' => Some("sessiontype"),
            't' | 'T' => Some("requesttty"),
            _ => None,
        };
        if let Some(key) = settles {
            self.is_settled(key);
        }
        match letter {
            'n' => self.stdin = Stdin::Empty,
            'q' => self.quiet = Quiet::Yes,
            's' => self.subsystem = Subsystem::Yes,
            'v' => self.verbose = self.verbose.saturating_add(1),
            'T' => self.terminal = TerminalWish::Never,
            't' => {
                self.terminal = match self.terminal {
                    TerminalWish::Ask => TerminalWish::Force,
                    _ => TerminalWish::Ask,
                }
            }
            'G' => self.action = Action::PrintConfig,
            'V' => self.action = Action::Version,
            'N' => return Err(CallProblem::Unsupported { option: name, instead: FORWARD }),
            'f' => return Err(CallProblem::Unsupported { option: name, instead: BACKGROUND }),
            _ => self.ignored.push(name),
        }
        Ok(())
    }

    fn valued(&mut self, letter: char, name: String, value: &str) -> Result<(), CallProblem> {
        match letter {
            'l' => self.named(value),
            'e' => {
                self.is_settled("escapechar");
                self.escape = Some(escape(&name, value)?);
            }
            'o' => return self.setting(value),
            'L' | 'R' | 'D' | 'w' => return Err(CallProblem::Unsupported { option: name, instead: FORWARD }),
            'W' => return Err(CallProblem::Unsupported { option: name, instead: STDIO }),
            'O' | 'Q' => return Err(CallProblem::Unsupported { option: name, instead: CONTROL }),
            _ => self.ignored.push(format!("{name} {value}")),
        }
        Ok(())
    }

    /// `-o key=value`, or `-o "key value"`.
    fn setting(&mut self, text: &str) -> Result<(), CallProblem> {
        let text = text.trim();
        let shown = || format!("-o {text}");
        let at = text.find(|c: char| c == '=' || c.is_whitespace());
        let (key, value) = at.map_or((text, ""), |at| text.split_at(at));
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if key.is_empty() || value.is_empty() {
            return Err(CallProblem::NoValue(shown()));
        }
        let bad = || CallProblem::BadValue { option: format!("-o {key}"), value: value.to_owned() };
        let lower = value.to_ascii_lowercase();
        let is_yes = || match lower.as_str() {
            "yes" | "true" => Ok(true),
            "no" | "false" => Ok(false),
            _ => Err(bad()),
        };
        let key_name = key.to_ascii_lowercase();
        if self.is_settled(&key_name) {
            // What comes too late must be right all the same.
            Self::default().setting(text)?;
            self.ignored.push(shown());
            return Ok(());
        }
        match key_name.as_str() {
            "user" => self.named(value),
            "hostname" => self.host_name = Some(value.to_owned()),
            "escapechar" => self.escape = Some(escape("-o EscapeChar", value)?),
            "connecttimeout" if lower == "none" => {}
            "connecttimeout" => {
                let seconds = seconds(&lower).ok_or_else(bad)?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "requesttty" => {
                self.terminal = match lower.as_str() {
                    "no" | "false" => TerminalWish::Never,
                    "yes" | "true" => TerminalWish::Ask,
                    "force" => TerminalWish::Force,
                    "auto" => TerminalWish::Auto,
                    _ => return Err(bad()),
                }
            }
            "stdinnull" => self.stdin = if is_yes()? { Stdin::Empty } else { Stdin::Own },
            "loglevel" if lower == "quiet" => self.quiet = Quiet::Yes,
            "sessiontype" => match lower.as_str() {
                "subsystem" => self.subsystem = Subsystem::Yes,
                "default" => {}
                "none" => return Err(CallProblem::Unsupported { option: shown(), instead: FORWARD }),
                _ => return Err(bad()),
            },
            "remotecommand" if lower != "none" => {
                return Err(CallProblem::Unsupported {
                    option: shown(),
                    instead: "write the command behind the machine",
                });
            }
            "forkafterauthentication" if is_yes()? => {
                return Err(CallProblem::Unsupported { option: shown(), instead: BACKGROUND });
            }
            "tunnel" if lower == "no" => {}
            "localforward" | "remoteforward" | "dynamicforward" | "tunnel" => {
                return Err(CallProblem::Unsupported { option: shown(), instead: FORWARD });
            }
            _ => self.ignored.push(shown()),
        }
        Ok(())
    }

    /// Whether a setting was made before; from here on it is.
    fn is_settled(&mut self, key: &str) -> bool {
        let settled = self.settled.iter().any(|known| known == key);
        if !settled {
            self.settled.push(key.to_owned());
        }
        settled
    }

    /// To run something on another machine than the one that is named would be worse than to refuse.
    fn check_host_name(&self) -> Result<(), CallProblem> {
        match &self.host_name {
            Some(name) if name.replace("%h", &self.host) != self.host => {
                Err(CallProblem::Unsupported { option: format!("-o HostName={name}"), instead: HOST_NAME })
            }
            _ => Ok(()),
        }
    }

    /// The first one counts, as with `ssh`.
    fn named(&mut self, user: &str) {
        self.user.get_or_insert_with(|| user.to_owned());
    }

    /// `host`, `user@host` or `ssh://user@host:port`.
    fn take_host(&mut self, text: &str) -> Result<(), CallProblem> {
        let mut host = text;
        if let Some(rest) = text.strip_prefix("ssh://") {
            host = rest.trim_end_matches('/');
            // The port is that of the way there, which malai finds by itself.
            if let Some((before, port)) = host.rsplit_once(':')
                && port.bytes().all(|b| b.is_ascii_digit())
            {
                host = before;
                self.ignored.push(format!("-p {port}"));
            }
        }
        if let Some((user, rest)) = host.rsplit_once('@') {
            if user.is_empty() {
                return Err(CallProblem::NoHost);
            }
            self.named(user);
            host = rest;
        }
        if host.is_empty() || host.starts_with('-') {
            return Err(CallProblem::NoHost);
        }
        self.host = host.to_owned();
        Ok(())
    }
}

fn escape(option: &str, value: &str) -> Result<EscapeChar, CallProblem> {
    let bad = |_| CallProblem::BadValue { option: option.to_owned(), value: value.to_owned() };
    value.parse().map_err(bad)
}

/// A time as `ssh` has it, in lower case: `90`, `90s`, `1m30`, `1h30m`. `None` if it is none.
fn seconds(text: &str) -> Option<u64> {
    let (mut all, mut number) = (0_u64, None);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        all = number.take()?.checked_mul(unit)?.checked_add(all)?;
    }
    match (number, text) {
        (_, "") => None,
        (number, _) => all.checked_add(number.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn call(text: &[&str]) -> Result<SshCall, CallProblem> {
        parse(&text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn ok(text: &[&str]) -> SshCall {
        call(text).unwrap_or_else(|problem| panic!("{text:?}: {problem:?}"))
    }

    #[test]
    fn what_other_programs_write_is_understood() {
        // rsync
        let rsync =
            ok(&["-l", "deploy", "web01.company", "rsync", "--server", "-vlogDtpre.iLsfxCIvu", ".", "/srv"]);
        assert_eq!((rsync.host.as_str(), rsync.user.as_deref()), ("web01.company", Some("deploy")));
        assert_eq!(rsync.command, ["rsync", "--server", "-vlogDtpre.iLsfxCIvu", ".", "/srv"]);
        // git
        let git = ok(&[
            "-o",
            "SendEnv=GIT_PROTOCOL",
            "-p",
            "2222",
            "git@web01.company",
            "git-upload-pack '/x.git'",
        ]);
        assert_eq!((git.user.as_deref(), git.command.len()), (Some("git"), 1));
        assert_eq!(git.ignored, ["-o SendEnv=GIT_PROTOCOL", "-p 2222"]);
        assert_eq!(ok(&["-G", "-4", "web01.company"]).action, Action::PrintConfig);
        // scp, by sftp and by itself
        let scp = ok(&[
            "-x",
            "-oPermitLocalCommand=no",
            "-oClearAllForwardings=yes",
            "-oRemoteCommand=none",
            "-oRequestTTY=no",
            "-oForwardAgent=no",
            "-l",
            "me",
            "-s",
            "--",
            "web01.company",
            "sftp",
        ]);
        assert_eq!((scp.subsystem, scp.terminal), (Subsystem::Yes, TerminalWish::Never));
        assert_eq!((scp.host.as_str(), scp.command), ("web01.company", vec!["sftp".to_owned()]));
        let old = ok(&["-x", "-oRequestTTY=no", "--", "web01.company", "scp -t -- /srv/x"]);
        assert_eq!((old.subsystem, old.command), (Subsystem::No, vec!["scp -t -- /srv/x".to_owned()]));
        // sftp
        let sftp = ok(&[
            "-oForwardX11 no",
            "-oPermitLocalCommand no",
            "-oClearAllForwardings yes",
            "-s",
            "--",
            "h.c",
            "sftp",
        ]);
        assert_eq!((sftp.subsystem, sftp.ignored.len()), (Subsystem::Yes, 3));
        // ansible
        let ansible = ok(&[
            "-C",
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60s",
            "-o",
            "KbdInteractiveAuthentication=no",
            "-o",
            "PasswordAuthentication=no",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "ControlPath=\"/x/%h\"",
            "-o",
            "User=\"root\"",
            "-tt",
            "web01.company",
            "/bin/sh -c 'echo ~ && sleep 0'",
        ]);
        assert_eq!(ansible.terminal, TerminalWish::Force);
        assert_eq!(ansible.connect_timeout, Some(Duration::from_secs(10)));
        assert_eq!(ansible.user.as_deref(), Some("root"));
        assert_eq!(ansible.command, ["/bin/sh -c 'echo ~ && sleep 0'"]);
    }

    #[test]
    fn letters_may_stand_together_and_values_beside_them() {
        let together = ok(&["-nxTq", "-vvltom", "-p22", "h.c", "-t", "ls", "-l", "-p"]);
        assert_eq!((together.stdin, together.quiet, together.verbose), (Stdin::Empty, Quiet::Yes, 2));
        assert_eq!((together.user.as_deref(), together.terminal), (Some("tom"), TerminalWish::Ask));
        // Options may follow the host; behind the first word of the command everything is the command's.
        assert_eq!(together.command, ["ls", "-l", "-p"]);
        assert_eq!(ok(&["h.c", "--", "-t"]).command, ["-t"]);
        assert_eq!(ok(&["-t", "-t", "h.c"]).terminal, TerminalWish::Force);
        assert_eq!(ok(&["-tt", "-T", "h.c"]).terminal, TerminalWish::Never);
        // `--` ends the options for good, before the host as behind it.
        let behind = ok(&["--", "h.c", "-x", "-l", "me"]);
        assert_eq!((behind.command, behind.user), (["-x", "-l", "me"].map(str::to_owned).to_vec(), None));
        assert_eq!(ok(&["h.c", "-x", "--", "--", "-t"]).command, ["--", "-t"]);
        assert_eq!(ok(&["h.c", "-", "-t"]).command, ["-", "-t"]);
        assert_eq!(ok(&["h.c"]).command, Vec::<String>::new());
        assert_eq!(ok(&["-V"]).action, Action::Version);
    }

    #[test]
    fn every_letter_of_openssh_is_known() {
        // getopt's own list in ssh.c, with the argument that -P has had since 9.4.
        let letters = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy";
        let mut all = letters.chars().peekable();
        while let Some(letter) = all.next() {
            let valued = all.next_if_eq(&':').is_some();
            let expected = if valued { WITH_VALUE } else { FLAGS };
            assert!(expected.contains(letter), "-{letter}");
            let option = format!("-{letter}");
            let words = if valued { vec![&*option, "x=1", "h.c"] } else { vec![&*option, "h.c"] };
            let words = if letter == 'e' { vec!["-e", "none", "h.c"] } else { words };
            match call(&words) {
                Ok(call) => assert_eq!((call.host.as_str(), call.command.len()), ("h.c", 0), "{option}"),
                Err(CallProblem::Unsupported { option: named, .. }) => {
                    assert!("NfLRDwWOQ".contains(letter) && named == option, "{option}");
                }
                Err(other) => panic!("{option}: {other:?}"),
            }
        }
        assert_eq!(call(&["-z", "h.c"]), Err(CallProblem::UnknownOption("-z".to_owned())));
    }

    #[test]
    fn a_user_may_stand_in_three_places_and_the_first_counts() {
        for words in [
            &["me@h.c"][..],
            &["-l", "me", "you@h.c"],
            &["me@h.c", "-l", "you"],
            &["-oUser=me", "-oUser=you", "h.c"],
            &["ssh://me@h.c:22/"],
        ] {
            let call = ok(words);
            assert_eq!((call.user.as_deref(), call.host.as_str()), (Some("me"), "h.c"), "{words:?}");
        }
        assert_eq!(ok(&["h.c"]).user, None);
    }

    #[test]
    fn what_would_promise_something_is_refused() {
        for words in [
            &["-L", "1:h:2", "h.c"][..],
            &["-R1:h:2", "h.c"],
            &["-D", "1", "h.c"],
            &["-W", "h:1", "h.c"],
            &["-N", "h.c"],
            &["-f", "h.c", "x"],
            &["-O", "exit", "h.c"],
            &["-oLocalForward=1 h:2", "h.c"],
            &["-o", "RemoteCommand=x", "h.c"],
            &["-oSessionType=none", "h.c"],
            &["-w0", "h.c"],
            &["-oTunnel=yes", "h.c"],
            &["-oForkAfterAuthentication=true", "h.c"],
            &["-oHostName=other.c", "h.c"],
            &["h.c", "-o", "hostname other.c"],
        ] {
            assert!(matches!(call(words), Err(CallProblem::Unsupported { .. })), "{words:?}");
        }
        for words in [&["-o", "ControlPersist"][..], &["-l"], &["-o"], &["-o", "=x", "h.c"]] {
            assert!(matches!(call(words), Err(CallProblem::NoValue(_))), "{words:?}");
        }
        for words in [
            &["-oConnectTimeout=soon", "h.c"][..],
            &["-oConnectTimeout=m", "h.c"],
            &["-oRequestTTY=maybe", "h.c"],
            &["-oStdinNull=maybe", "h.c"],
            &["-oSessionType=maybe", "h.c"],
            &["-e", "ab", "h.c"],
        ] {
            assert!(matches!(call(words), Err(CallProblem::BadValue { .. })), "{words:?}");
        }
        for words in [&[][..], &["-t"], &["me@"], &["@h.c"], &["--"], &["-"], &["--", "-t"]] {
            assert_eq!(call(words), Err(CallProblem::NoHost), "{words:?}");
        }
        assert_eq!(ok(&["-oHostName=%h", "-oTunnel=no", "h.c"]).host, "h.c");
    }

    /// What the real `ssh` makes of words, as far as it tells; `None` if it refuses them.
    fn by_ssh(words: &[&str]) -> Option<BTreeMap<String, String>> {
        let output = std::process::Command::new("ssh").args(["-F", "none", "-G"]).args(words).output();
        let output = output.expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        output
            .status
            .success()
            .then(|| lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn options_are_understood_as_the_real_ssh_does() {
        if std::process::Command::new("ssh").arg("-V").output().is_err() {
            let told = "not run: ssh is not installed";
            assert!(std::env::var_os("CI").is_none(), "{told}");
            _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
            return;
        }
        const PARTS: [&[&str]; 34] = [
            &["-t"],
            &["-tt"],
            &["-T"],
            &["-n"],
            &["-q"],
            &["-x"],
            &["-nTx"],
            &["-C4"],
            &["--"],
            &["-l", "me"],
            &["-lyou"],
            &["-p", "22"],
            &["-p2222"],
            &["-xl", "she"],
            &["-e", "none"],
            &["-e^B"],
            &["-oRequestTTY=force"],
            &["-oRequestTTY=no"],
            &["-o", "RequestTTY auto"],
            &["-o", "requesttty = YES"],
            &["-oStdinNull=true"],
            &["-oStdinNull=no"],
            &["-oStdinNull=maybe"],
            &["-oConnectTimeout=10"],
            &["-oConnectTimeout=1m30"],
            &["-oConnectTimeout=2M"],
            &["-oConnectTimeout=x"],
            &["-oUser=they"],
            &["-o", "User=\"it\""],
            &["-oEscapeChar=+"],
            &["host-a"],
            &["me@host-b"],
            &["@host-c"],
            &["ssh://us@host-d:22"],
        ];
        let mut state = 0x5eed_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut understood, mut refused) = (0, 0);
        while understood < 150 {
            let mut words: Vec<&str> =
                (0..random(4)).flat_map(|_| PARTS[random(PARTS.len())]).copied().collect();
            words.push(["host-a", "me@host-b"][random(2)]);
            words.extend((0..random(4)).flat_map(|_| PARTS[random(PARTS.len())]));
            let (ours, theirs) = (call(&words), by_ssh(&words));
            let (Ok(ours), Some(theirs)) = (&ours, &theirs) else {
                assert!(ours.is_err() && theirs.is_none(), "{words:?}: {ours:?}, {theirs:?}");
                refused += 1;
                continue;
            };
            understood += 1;
            let is = |key: &str, value: &str| assert_eq!(theirs[key], value, "{key}: {words:?}: {ours:?}");
            is("hostname", &ours.host);
            if let Some(user) = &ours.user {
                is("user", user);
            } else {
                assert!(!["me", "you", "she", "they", "it", "us"].contains(&&*theirs["user"]), "{words:?}");
            }
            let terminal = match ours.terminal {
                TerminalWish::Auto => ["auto", "auto"],
                TerminalWish::Never => ["false", "no"],
                TerminalWish::Ask => ["true", "yes"],
                TerminalWish::Force => ["force", "force"],
            };
            assert!(terminal.contains(&&*theirs["requesttty"]), "{words:?}: {ours:?}");
            is("stdinnull", if ours.stdin == Stdin::Empty { "yes" } else { "no" });
            let timeout = ours.connect_timeout.map_or("none".to_owned(), |time| time.as_secs().to_string());
            is("connecttimeout", &timeout);
            let escape = ours.escape.unwrap_or_default().to_string();
            is("escapechar", if escape == "^B" { "\\^B" } else { &escape });
        }
        assert!(refused > 0);
    }
}

//! `ssh`'s command line, as rsync, git, scp, sftp and ansible write it.
//!
//! All letters of OpenSSH are known, with and without values, so that nothing is taken for something else. What means
//! something here is kept; what would promise something that does not happen (a forward) is refused; the rest (ciphers,
//! keys, ports, multiplexing) is about what malai does by itself, and is ignored.

use std::time::Duration;

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
    /// Options that mean nothing here, for whoever asks with -v.
    pub(crate) ignored: Vec<String>,
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
const CONTROL: &str = "there is no control socket to talk to: the daemon keeps connections by itself";

/// Understands the words after `malai rsh`.
///
/// # Errors
/// [`CallProblem`] for what is no call of `ssh`, or asks for what is not done here.
pub(crate) fn parse(words: &[String]) -> Result<SshCall, CallProblem> {
    let mut call = SshCall::default();
    let mut host: Option<&str> = None;
    let mut words = words.iter();
    let mut ended = false;
    while let Some(word) = words.next() {
        if word == "--" && !ended {
            // Before the host it ends the options up to it; behind it, all of them.
            ended = true;
        } else if !ended && word.len() > 1 && word.starts_with('-') {
            call.option(word, &mut words)?;
        } else if host.is_none() {
            host = Some(word);
            ended = false;
        } else {
            call.command.push(word.clone());
            call.command.extend(words.by_ref().cloned());
        }
    }
    match host {
        Some(host) => call.take_host(host)?,
        None if call.action == Action::Version => {}
        None => return Err(CallProblem::NoHost),
    }
    Ok(call)
}

impl SshCall {
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
        match letter {
            'n' => self.stdin = Stdin::Empty,
            'q' => self.quiet = Quiet::Yes,
            's' => self.subsystem = Subsystem::Yes,
            'v' => self.verbose = self.verbose.saturating_add(1),
            'T' => self.terminal = TerminalWish::Never,
            't' => {
                self.terminal = match self.terminal {
                    TerminalWish::Ask | TerminalWish::Force => TerminalWish::Force,
                    TerminalWish::Auto | TerminalWish::Never => TerminalWish::Ask,
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
        match key.to_ascii_lowercase().as_str() {
            "user" => self.named(value),
            "connecttimeout" if lower == "none" => {}
            "connecttimeout" => {
                let seconds: u64 = value.parse().map_err(|_| bad())?;
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
            "stdinnull" if lower == "yes" => self.stdin = Stdin::Empty,
            "loglevel" if lower == "quiet" => self.quiet = Quiet::Yes,
            "sessiontype" if lower == "subsystem" => self.subsystem = Subsystem::Yes,
            "sessiontype" if lower == "none" => {
                return Err(CallProblem::Unsupported { option: shown(), instead: FORWARD });
            }
            "remotecommand" if lower != "none" => {
                return Err(CallProblem::Unsupported {
                    option: shown(),
                    instead: "write the command behind the machine",
                });
            }
            "forkafterauthentication" if lower == "yes" => {
                return Err(CallProblem::Unsupported { option: shown(), instead: BACKGROUND });
            }
            "localforward" | "remoteforward" | "dynamicforward" => {
                return Err(CallProblem::Unsupported { option: shown(), instead: FORWARD });
            }
            _ => self.ignored.push(shown()),
        }
        Ok(())
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
            self.named(user);
            host = rest;
        }
        if host.is_empty() {
            return Err(CallProblem::NoHost);
        }
        self.host = host.to_owned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        for words in [&["me@h.c"][..], &["-l", "me", "you@h.c"], &["-oUser=me", "h.c"], &["ssh://me@h.c:22/"]]
        {
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
        ] {
            assert!(matches!(call(words), Err(CallProblem::Unsupported { .. })), "{words:?}");
        }
        for words in [&["-o", "ControlPersist"][..], &["-l"], &["-o"], &["-o", "=x", "h.c"]] {
            assert!(matches!(call(words), Err(CallProblem::NoValue(_))), "{words:?}");
        }
        for words in [&["-oConnectTimeout=soon", "h.c"][..], &["-oRequestTTY=maybe", "h.c"]] {
            assert!(matches!(call(words), Err(CallProblem::BadValue { .. })), "{words:?}");
        }
        for words in [&[][..], &["-t"], &["me@"], &["--"]] {
            assert_eq!(call(words), Err(CallProblem::NoHost), "{words:?}");
        }
    }
}

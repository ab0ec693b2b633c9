//! The words of a command line that was meant for a remote shell, when no shell runs.
//!
//! Programs that use `ssh` as their transport send one text, for the user's shell there to split. Here it is split as a
//! POSIX shell would. What only a shell could do with it is refused, never passed on as if it were text: a pipe sign that
//! becomes an argument does something else than was meant.

/// Why a text is no plain command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotPlain {
    /// It asks for something that a shell does.
    Shell {
        /// The part of it.
        part: String,
        /// What a shell would do there.
        what: &'static str,
    },
    /// A quote or backslash at its end has nothing that closes it.
    OpenQuote,
}

/// Words that begin a construct of the shell's, where they stand first and unquoted.
const RESERVED: &[&str] = &[
    "!", "{", "}", "[[", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function",
    "if", "select", "then", "until", "while",
];

/// Splits a text into words as a POSIX shell would, with quotes removed. A `~/` at a word's start becomes relative to the
/// directory where commands start, which is the user's home.
///
/// # Errors
/// [`NotPlain`] for whatever needs a shell.
pub(crate) fn split(text: &str) -> Result<Vec<String>, NotPlain> {
    let mut words = Vec::new();
    // A line's end at the very end means nothing; blanks there are passed over in any case, but not one that is escaped.
    let mut rest = Scanner { text: text.trim_end_matches('\n').chars().peekable() };
    while let Some(word) = rest.word(words.is_empty())? {
        words.push(word);
    }
    Ok(words)
}

struct Scanner<'t> {
    text: std::iter::Peekable<std::str::Chars<'t>>,
}

/// A word, and which of its characters stood there without quotes.
#[derive(Default)]
struct Word {
    text: Vec<(char, bool)>,
    /// It is there even if it is empty.
    quoted: bool,
}

impl Scanner<'_> {
    /// Takes the next word; `None` at the end.
    fn word(&mut self, first: bool) -> Result<Option<String>, NotPlain> {
        let mut word = Word::default();
        while let Some(c) = self.text.next() {
            match c {
                ' ' | '\t' if word.is_absent() => {}
                ' ' | '\t' => break,
                '\'' => self.single(&mut word)?,
                '"' => self.double(&mut word)?,
                '\\' => match self.text.next() {
                    Some('\n') => {}
                    Some(c) => word.push_quoted(c),
                    None => return Err(NotPlain::OpenQuote),
                },
                '|' | '&' | ';' | '\n' => return Err(shell(c, "joins commands")),
                '<' | '>' => return Err(shell(c, "redirects")),
                '(' | ')' => return Err(shell(c, "groups commands")),
                '`' => return Err(shell(c, "runs a command within the command")),
                '$' => self.dollar(&mut word, &['\'', '"'])?,
                '#' if word.is_absent() => return Err(shell(c, "begins a comment")),
                c => word.text.push((c, true)),
            }
        }
        if word.is_absent() {
            return Ok(None);
        }
        word.finish(first).map(Some)
    }

    fn single(&mut self, word: &mut Word) -> Result<(), NotPlain> {
        word.quoted = true;
        loop {
            match self.text.next() {
                Some('\'') => return Ok(()),
                Some(c) => word.push_quoted(c),
                None => return Err(NotPlain::OpenQuote),
            }
        }
    }

    fn double(&mut self, word: &mut Word) -> Result<(), NotPlain> {
        word.quoted = true;
        loop {
            match self.text.next() {
                Some('"') => return Ok(()),
                Some('\\') => match self.text.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => word.push_quoted(c),
                    // Before anything else it stands for itself.
                    Some(c) => {
                        word.push_quoted('\\');
                        word.push_quoted(c);
                    }
                    None => return Err(NotPlain::OpenQuote),
                },
                Some('`') => return Err(shell('`', "runs a command within the command")),
                Some('$') => self.dollar(word, &[])?,
                Some(c) => word.push_quoted(c),
                None => return Err(NotPlain::OpenQuote),
            }
        }
    }

    /// A dollar sign: before a name or its like it stands for a value, else for itself.
    fn dollar(&mut self, word: &mut Word, more: &[char]) -> Result<(), NotPlain> {
        // A line's end that is escaped is not there.
        loop {
            let mut ahead = self.text.clone();
            match (ahead.next(), ahead.next()) {
                (Some('\\'), Some('\n')) => self.text = ahead,
                _ => break,
            }
        }
        match self.text.peek() {
            Some(c)
                if c.is_ascii_alphanumeric()
                    || matches!(c, '_' | '{' | '(' | '[' | '@' | '*' | '#' | '?' | '-' | '$' | '!')
                    || more.contains(c) =>
            {
                Err(NotPlain::Shell { part: format!("${c}"), what: "is replaced by a value" })
            }
            _ => {
                word.push_quoted('$');
                Ok(())
            }
        }
    }
}

impl Word {
    fn push_quoted(&mut self, c: char) {
        self.quoted = true;
        self.text.push((c, false));
    }

    fn is_absent(&self) -> bool {
        self.text.is_empty() && !self.quoted
    }

    /// The characters up to the first quoted one.
    fn bare_prefix(&self) -> String {
        self.text.iter().take_while(|(_, bare)| *bare).map(|(c, _)| c).collect()
    }

    fn finish(self, first: bool) -> Result<String, NotPlain> {
        let text: String = self.text.iter().map(|(c, _)| c).collect();
        let refuse = |what| Err(NotPlain::Shell { part: text.clone(), what });
        let bare = |wanted: char| self.text.iter().position(|(c, bare)| *bare && *c == wanted);
        if bare('*').is_some() || bare('?').is_some() || bare('[').is_some_and(|at| self.closes(at, ']')) {
            return refuse("is replaced by the names of files that match it");
        }
        if let Some(at) = bare('{')
            && self.closes(at, '}')
            && (self.within(at, "},").contains(',') || text.contains(".."))
        {
            return refuse("is replaced by several words");
        }
        let prefix = self.bare_prefix();
        if first {
            if !self.quoted && RESERVED.contains(&text.as_str()) {
                return refuse("begins a construct of a shell's");
            }
            if let Some((name, _)) = prefix.split_once('=')
                && is_variable(name)
            {
                return refuse("sets a variable (`env NAME=value program` does so without a shell)");
            }
        }
        if !prefix.starts_with('~') {
            return Ok(text);
        }
        // Only what stands there without quotes up to the slash is a home.
        match prefix[1..].split_once('/') {
            Some(("", _)) => {
                let relative = text[1..].trim_start_matches('/');
                // As the first word it stays a path, which is another name than that of a program; nor may it be taken
                // for an option.
                let kept = if first || relative.is_empty() || relative.starts_with('-') { "./" } else { "" };
                Ok(format!("{kept}{relative}"))
            }
            None if text == "~" => Ok(".".to_owned()),
            _ => refuse("is replaced by another user's home"),
        }
    }

    /// Whether a bare character follows a place.
    fn closes(&self, at: usize, wanted: char) -> bool {
        self.text[at + 1..].iter().any(|(c, bare)| *bare && *c == wanted)
    }

    /// The bare characters behind a place that are among those wanted.
    fn within(&self, at: usize, wanted: &str) -> String {
        self.text[at + 1..].iter().filter(|(c, bare)| *bare && wanted.contains(*c)).map(|(c, _)| c).collect()
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn shell(part: char, what: &'static str) -> NotPlain {
    NotPlain::Shell { part: if part == '\n' { "a line's end".to_owned() } else { part.to_string() }, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Vec<String> {
        split(text).unwrap_or_else(|problem| panic!("{text:?}: {problem:?}"))
    }

    #[test]
    fn what_rsync_git_scp_and_ansible_send_is_split_as_their_shell_would() {
        for (sent, words) in [
            (
                "rsync --server -vlogDtpre.iLsfxCIvu --delete . /srv/x",
                &["rsync", "--server", "-vlogDtpre.iLsfxCIvu", "--delete", ".", "/srv/x"][..],
            ),
            (
                r"rsync --server --sender -logDtpre.iLsfxCIvu . /srv/a\ b\'s",
                &["rsync", "--server", "--sender", "-logDtpre.iLsfxCIvu", ".", "/srv/a b's"],
            ),
            ("rsync --server -e.LsfxC . ~/backup", &["rsync", "--server", "-e.LsfxC", ".", "backup"]),
            ("git-upload-pack '/srv/x.git'", &["git-upload-pack", "/srv/x.git"]),
            ("git-receive-pack '~/it'\\''s.git'", &["git-receive-pack", "~/it's.git"]),
            ("git-upload-pack '/srv/odd'\\!'.git'", &["git-upload-pack", "/srv/odd!.git"]),
            ("scp -t -- /srv/", &["scp", "-t", "--", "/srv/"]),
            ("/bin/sh -c 'echo ~root && sleep 0'", &["/bin/sh", "-c", "echo ~root && sleep 0"]),
            (
                "/bin/sh -c '( umask 77 && mkdir -p \"` echo /tmp/x `\" ) && sleep 0'",
                &["/bin/sh", "-c", "( umask 77 && mkdir -p \"` echo /tmp/x `\" ) && sleep 0"],
            ),
            ("/bin/sh -c '/usr/bin/python3 && sleep 0'", &["/bin/sh", "-c", "/usr/bin/python3 && sleep 0"]),
            ("mosh-server 'new' '-c' '256' '--' ", &["mosh-server", "new", "-c", "256", "--"]),
        ] {
            assert_eq!(ok(sent), words, "{sent}");
        }
    }

    #[test]
    fn quotes_and_backslashes_are_those_of_a_shell() {
        for (text, words) in [
            ("", &[][..]),
            (" \t ", &[]),
            ("''", &[""]),
            ("a '' b", &["a", "", "b"]),
            (r#"a"b c"'d e'f\ g"#, &["ab cd ef g"]),
            (r#""a\$b\`c\"d\\e\f""#, &[r#"a$b`c"d\e\f"#]),
            ("a\\\nb", &["ab"]),
            ("a \\\n b", &["a", "b"]),
            ("'a\nb'", &["a\nb"]),
            (r"\*\?\[x\]\~\$HOME\;", &["*?[x]~$HOME;"]),
            ("'*' \"?\" \"[x]\"", &["*", "?", "[x]"]),
            ("[ -f x ]", &["[", "-f", "x", "]"]),
            ("find . -exec ls {} +", &["find", ".", "-exec", "ls", "{}", "+"]),
            ("a$ b$. cost=5$", &["a$", "b$.", "cost=5$"]),
            ("echo a#b '#c' FOO=bar", &["echo", "a#b", "#c", "FOO=bar"]),
            ("'if' 'FOO=bar'", &["if", "FOO=bar"]),
            ("ps aux\n", &["ps", "aux"]),
            ("é 'ü'", &["é", "ü"]),
        ] {
            assert_eq!(ok(text), words, "{text:?}");
        }
    }

    #[test]
    fn a_home_becomes_relative_to_where_commands_start() {
        for (text, words) in [
            ("ls ~", &["ls", "."][..]),
            ("ls ~/", &["ls", "./"]),
            ("ls ~/a/b", &["ls", "a/b"]),
            ("ls ~//a", &["ls", "a"]),
            ("ls ~/'a b'", &["ls", "a b"]),
            ("ls ~/-rf", &["ls", "./-rf"]),
            ("~/tool x", &["./tool", "x"]),
            ("ls '~' \"~/a\" \\~/a a~ --x=~/a", &["ls", "~", "~/a", "~/a", "a~", "--x=~/a"]),
        ] {
            assert_eq!(ok(text), words, "{text:?}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_refused_and_not_passed_on_as_text() {
        for text in [
            "cd /srv && ls",
            "a | b",
            "a; b",
            "a &",
            "a > b",
            "a < b",
            "a 2>&1",
            "(a)",
            "a\nb",
            "echo $HOME",
            "echo ${x}",
            "echo $(id)",
            "echo `id`",
            "echo \"$HOME\"",
            "echo \"`id`\"",
            "echo $1",
            "echo $?",
            "echo $$",
            "echo $'a'",
            "echo $\\\nHOME",
            "ls *.log",
            "ls a?",
            "ls [ab]c",
            "ls ~root",
            "ls ~root/x",
            "ls ~+/x",
            "# nothing",
            "a # b",
            "FOO=bar make",
            "if true",
            "! true",
            "[[ a ]]",
            "{ a }",
            "mv a{1,2}",
            "echo {1..3}",
            "while x",
            "ls ~r'oo't",
        ] {
            assert!(matches!(split(text), Err(NotPlain::Shell { .. })), "{text:?}: {:?}", split(text));
        }
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(split(text), Err(NotPlain::OpenQuote), "{text:?}");
        }
    }

    /// What a shell makes of a text behind `printf`.
    fn by_shell(shell: &str, text: &str, dir: &std::path::Path) -> Vec<String> {
        let script = format!("printf '%s\\0' {text}");
        let output = std::process::Command::new(shell).args(["-c", &script]).current_dir(dir).output();
        let shown = String::from_utf8(output.expect("runs").stdout).expect("text");
        shown.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_that_is_there_splits_in_the_same_way() {
        for text in [
            r#"a"b c"'d e'f\ g x"#,
            r#""a\$b\`c\"d\\e\f" '' "" \"q\""#,
            "a\\\nb 'c\nd' é",
            r"a\ b\'s [ -f x ] a#b {} a$ \~ '~/x' \*",
            "FOO\\=bar a=b ! if",
        ] {
            let words = by_shell("/bin/sh", text, std::path::Path::new("/"));
            assert_eq!(ok(&format!("printf {text}"))[1..], words, "{text:?}");
        }
    }

    #[test]
    fn whatever_is_not_refused_is_what_shells_make_of_it() {
        const PARTS: &[&str] = &[
            "a", "b", " ", " ", "'", "'", "\"", "\"", "\\", "$", "#", "*", "[", "]", "{", "}", ",", "..",
            "=", "!", ";", "|", "&", "<", ">", "(", ")", "\n", "`", "-", "1", "~", "/", "\t", "é", "\\\n",
        ];
        // What unquoted globs would find; in a folder of names that none of the rest makes.
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["ab", "b", "a1"] {
            std::fs::write(dir.path().join(name), "").expect("a file");
        }
        let shells = ["/bin/sh", "/bin/bash"].map(std::path::Path::new);
        let mut state = 0x5eed_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut plain, mut refused) = (0, 0);
        while plain < 150 {
            let text: String = (0..=random(9)).map(|_| PARTS[random(PARTS.len())]).collect();
            let Ok(words) = split(&format!("printf {text}")) else {
                refused += 1;
                continue;
            };
            // A home is another one there; nothing at all is one empty word to printf.
            if text.contains('~') || words.len() == 1 {
                continue;
            }
            plain += 1;
            for shell in shells.iter().filter(|shell| shell.exists()) {
                let shown = by_shell(&shell.to_string_lossy(), &text, dir.path());
                assert_eq!(words[1..], shown, "{text:?} in {}", shell.display());
            }
        }
        assert!(refused > 0);
    }
}

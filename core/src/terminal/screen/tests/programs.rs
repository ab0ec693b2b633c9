//! What real programs write.

use super::*;

/// What a real program writes to a terminal while it is typed at.
#[expect(clippy::print_stdout, reason = "says what was not tested")]
async fn record(argv: &[&str], typed: &[&str]) -> Option<Vec<u8>> {
    use crate::host::{Executable, LocalUser, Login, PtyProcess, SpawnRequest};
    let user = LocalUser::current().expect("a user");
    let found = user.path.split(':').any(|dir| std::path::Path::new(dir).join(argv[0]).exists());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{} is missing: .ci/run installs it", argv[0]);
        println!("not run: no {}", argv[0]);
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let text: String = (0..200).map(|line| format!("line {line} with\ttabs and 日本語\n")).collect();
    std::fs::write(dir.path().join("text"), text).expect("is written");
    let request = SpawnRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: [
            ("PATH", user.path.as_str()),
            ("TERM", "xterm-256color"),
            ("LANG", "C.UTF-8"),
            ("HOME", "/nonexistent"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        dir: dir.path().to_owned(),
        user: user.clone(),
        program: Executable::Named,
    };
    let process = PtyProcess::spawn(&request, window(80, 24), Login::Program).expect("starts");
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    for typed in std::iter::once(&"").chain(typed) {
        process.master.write(typed.as_bytes()).await.ok();
        // Until it says nothing for a moment.
        let quiet = std::time::Duration::from_millis(400);
        while let Ok(Ok(count)) = tokio::time::timeout(quiet, process.master.read(&mut block)).await {
            bytes.extend_from_slice(&block[..count]);
            if count == 0 || bytes.len() > 1_000_000 {
                break;
            }
        }
    }
    process.hang_up(std::time::Duration::from_millis(200)).await.ok();
    assert!(bytes.len() > 200, "{argv:?} said nothing: {:?}", String::from_utf8_lossy(&bytes));
    Some(bytes)
}

#[tokio::test]
async fn real_programs_are_drawn_exactly_at_any_moment() {
    let programs: [(&[&str], &[&str]); 4] = [
        (
            &["vim", "-u", "NONE", "-N", "text"],
            &["ihello\x1b", ":set number\r", ":split\r", "\x06", ":syntax on\r"],
        ),
        (&["less", "text"], &[" ", "/line 7\r", "b", "G"]),
        (&["top", "-d", "1"], &["1", "h", "\x1b"]),
        (
            &["tmux", "-L", "malai-test", "-f", "/dev/null", "new-session", "sh"],
            &["seq 40\r", "\x02%", "ls\r", "exit\r", "exit\r"],
        ),
    ];
    for (argv, typed) in programs {
        let Some(bytes) = record(argv, typed).await else { continue };
        let step = (bytes.len() / 40).max(1);
        for cut in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
            let mut screen = screen_of(80, 24, &bytes[..cut]);
            let rest = &bytes[cut..bytes.len().min(cut + 2 * step)];
            if let Err(problem) = check_redraw(&mut screen, History::With, b"local$ ", rest) {
                panic!("{argv:?} at {cut}: {problem}");
            }
        }
    }
}

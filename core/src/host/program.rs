//! Finding a program by the user's own search path.
//!
//! Not left to the system, for two reasons: the path to search is the user's and not this process's, and a
//! process can be started by `posix_spawn` (no copy of this process's memory map) only if the program is
//! given as a path.

use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::HostError;

/// Where systems keep the one program that is found although no search path has it: what `sftp` asks for by name.
const SFTP_SERVER: &str = "sftp-server";
const SFTP_PLACES: &str = "/usr/lib/openssh:/usr/libexec:/usr/libexec/openssh:/usr/lib/ssh:/usr/lib/misc";

/// The files that a word may mean, in their order. A word with a slash is a path; any other is searched in `path`, whose
/// empty and relative entries are passed over. Nothing is looked at.
pub(super) fn candidates(word: &str, path: &str) -> Vec<PathBuf> {
    if word.contains('/') {
        return vec![PathBuf::from(word)];
    }
    if matches!(word, "" | "." | "..") {
        return Vec::new();
    }
    let more = if word == SFTP_SERVER { SFTP_PLACES } else { "" };
    let dirs = path.split(':').chain(more.split(':')).map(Path::new).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(word)).collect()
}

/// Finds the file that a word means to this process; a path is relative to `dir`.
pub(super) fn find_program(word: &str, path: &str, dir: &Path) -> Result<PathBuf, HostError> {
    if word.contains('/') {
        return check_file(word, dir.join(word));
    }
    let mut refused = None;
    for program in candidates(word, path) {
        match check_executable(&program) {
            Ok(()) => return Ok(program),
            // As shells do: a later directory may have one that can be executed.
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                refused.get_or_insert(HostError::NotExecutable { program, source });
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| HostError::NotFound { program: word.to_owned() }))
}

/// Checks that a file is there and can be executed by this process; `word` is what it is called in an error.
pub(super) fn check_file(word: &str, program: PathBuf) -> Result<PathBuf, HostError> {
    match check_executable(&program) {
        Ok(()) => Ok(program),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(HostError::NotFound { program: word.to_owned() })
        }
        Err(source) => Err(HostError::NotExecutable { program, source }),
    }
}

fn check_executable(program: &Path) -> io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    faccessat(AT_FDCWD, program, AccessFlags::X_OK, AtFlags::AT_EACCESS).map_err(Into::into)
}

/// Says whether commands can start in a directory.
pub(super) fn is_enterable(dir: &Path) -> bool {
    dir.is_dir() && faccessat(AT_FDCWD, dir, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tool(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("is made");
        fs::write(path, "#!/bin/sh\n").expect("is written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn the_first_executable_of_the_path_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        tool(&root.join("a/tool"), 0o644);
        tool(&root.join("b/tool"), 0o755);
        tool(&root.join("c/tool"), 0o755);
        let path = format!(":relative:{0}/none:{0}/a:{0}/b:{0}/c", root.display());
        assert_eq!(find_program("tool", &path, root).expect("is found"), root.join("b/tool"));
        let only_a = format!("{}/a", root.display());
        let error = find_program("tool", &only_a, root).expect_err("cannot be executed");
        assert_eq!((error.code().as_str(), error.shell_status()), ("command.not_executable", Some(126)));
    }

    #[test]
    fn a_path_is_relative_to_the_directory_and_not_searched() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        tool(&root.join("bin/tool"), 0o755);
        assert_eq!(find_program("./bin/tool", "", root).expect("is found"), root.join("./bin/tool"));
        assert_eq!(find_program("bin/none", "", root).expect_err("is none").shell_status(), Some(127));
        assert_eq!(find_program("./bin", "", root).expect_err("a directory").shell_status(), Some(126));
    }

    #[test]
    fn a_program_in_the_working_directory_is_not_found_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        tool(&dir.path().join("tool"), 0o755);
        for path in ["", ".", ":", "/nowhere:"] {
            let error = find_program("tool", path, dir.path()).expect_err("is not searched");
            assert_eq!(error.shell_status(), Some(127));
        }
        for word in ["", ".", ".."] {
            assert_eq!(
                find_program(word, "/usr/bin", dir.path()).expect_err("no program").shell_status(),
                Some(127)
            );
        }
    }

    #[test]
    fn sftp_server_is_looked_for_where_systems_keep_it_and_nothing_else_is() {
        let found = candidates("sftp-server", "/usr/bin:/bin");
        assert_eq!(found[..2], [PathBuf::from("/usr/bin/sftp-server"), "/bin/sftp-server".into()]);
        assert!(found.contains(&"/usr/lib/openssh/sftp-server".into()), "{found:?}");
        assert_eq!(candidates("sftp-server2", "/bin"), [PathBuf::from("/bin/sftp-server2")]);
        assert_eq!(candidates("./sftp-server", "/bin"), [PathBuf::from("./sftp-server")]);
        let dir = tempfile::tempdir().expect("a directory");
        tool(&dir.path().join("sftp-server"), 0o755);
        let path = dir.path().display().to_string();
        let own = find_program("sftp-server", &path, dir.path()).expect("is found");
        assert_eq!(own, dir.path().join("sftp-server"), "the user's own comes first");
    }
}

//! Reading and writing what this process was given, which may not block: rsync makes its ends of the pipes to its remote
//! shell so, and other programs share theirs with whoever does. To take "not now" for an end would lose bytes.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Reads as [`Read::read`] does, and waits where that would not.
pub(crate) fn read(from: &mut (impl Read + AsFd), block: &mut [u8]) -> Result<usize> {
    loop {
        match from.read(block) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(from, PollFlags::POLLIN)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Writes everything, and waits where that is needed.
pub(crate) fn write_all(to: &mut (impl Write + AsFd), mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(to, PollFlags::POLLOUT)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether reading cannot wait for somebody: a file, or `/dev/null`. Of a pipe or terminal that has something another
/// process may take it first.
pub(crate) fn never_waits(from: &impl AsFd) -> bool {
    let Ok(from) = rustix::fs::fstat(from) else { return false };
    let null = rustix::fs::stat("/dev/null").ok();
    match rustix::fs::FileType::from_raw_mode(from.st_mode) {
        rustix::fs::FileType::RegularFile => true,
        rustix::fs::FileType::CharacterDevice => null.is_some_and(|null| null.st_rdev == from.st_rdev),
        _ => false,
    }
}

fn wait(on: &impl AsFd, flags: PollFlags) -> Result<()> {
    match poll(&mut [PollFd::new(on.as_fd(), flags)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_files_and_nothing_are_read_without_a_thread() {
        let (pipe, _other) = std::io::pipe().expect("a pipe");
        let null = std::fs::File::open("/dev/null").expect("is there");
        let file = tempfile::tempfile().expect("a file");
        assert_eq!((never_waits(&pipe), never_waits(&null), never_waits(&file)), (false, true, true));
        assert!(!never_waits(&UnixStream::pair().expect("a pair").0));
        assert!(!never_waits(&std::fs::File::open("/dev/ptmx").expect("a terminal")));
    }

    #[test]
    fn a_pipe_that_does_not_block_loses_nothing() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("is set");
        }
        let bytes: Vec<u8> = (0..4 << 20).map(|number: u32| (number >> 3) as u8).collect();
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || write_all(&mut theirs, &sent));
        let mut all = Vec::new();
        let mut block = vec![0; 100_000];
        loop {
            match read(&mut ours, &mut block).expect("reads") {
                0 => break,
                count => all.extend_from_slice(&block[..count]),
            }
        }
        writing.join().expect("joins").expect("writes");
        assert!(all == bytes);
    }
}

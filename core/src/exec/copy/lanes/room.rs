//! Where lanes join the far end of a copy: a socket in a directory that only its user can enter.

use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use malai_model::wire::copy::CopyRole;
use malai_model::wire::copy::lanes::{JOINED, LaneKey, LaneWord, ROOM, SECRET};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use subtle::ConstantTimeEq;

use super::LaneHandle;
use super::shared::lock;

/// How long lanes may take to come.
const OPEN_FOR: Duration = Duration::from_secs(20);
/// How long one that connected may take to say which it is. It is a process of the same user.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// How often the door looks whether the copy is over.
const LOOK_UP: u16 = 50;

/// A directory with a socket; both are removed when it is dropped.
struct Room {
    dir: PathBuf,
    listener: UnixListener,
    key: LaneKey,
}

/// The directory of a room. Its name is no secret.
fn room_dir(room: &[u8; ROOM]) -> PathBuf {
    std::env::temp_dir().join(format!("malai-cp-{}", HEXLOWER.encode(room)))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("lanes")
}

impl Room {
    fn open() -> io::Result<Self> {
        let mut key = LaneKey { room: [0; ROOM], secret: [0; SECRET] };
        for bytes in [&mut key.room[..], &mut key.secret[..]] {
            getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))?;
        }
        let dir = room_dir(&key.room);
        // Fails if anything of that name is there.
        DirBuilder::new().mode(0o700).create(&dir)?;
        match UnixListener::bind(socket(&dir)) {
            Ok(listener) => Ok(Self { dir, listener, key }),
            Err(error) => {
                remove(&dir);
                Err(error)
            }
        }
    }

    /// Waits for the next one that connects; `None` if none did for a moment.
    fn accept(&self) -> io::Result<Option<UnixStream>> {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK_UP)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(self.listener.accept()?.0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a stream in, if it belongs here; returns which lane it is.
    fn admit(&self, mut stream: &UnixStream) -> io::Result<u8> {
        check_peer(stream)?;
        stream.set_read_timeout(Some(INTRODUCTION))?;
        let mut said = [0; SECRET + 1];
        stream.read_exact(&mut said)?;
        stream.set_read_timeout(None)?;
        let (secret, lane) = (&said[..SECRET], said[SECRET]);
        if !bool::from(secret.ct_eq(&self.key.secret)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(lane)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    _ = std::fs::remove_file(socket(dir));
    if let Err(error) = std::fs::remove_dir(dir) {
        tracing::debug!(%error, "where the lanes of a copy met is not removed");
    }
}

/// Checks, by the kernel's word, that a process of this one's user is at the other end.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let uid = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?.uid();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let uid = nix::unistd::getpeereid(stream)?.0.as_raw();
    if uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user is at the other end of the socket"))
}

/// Connects to the room of a key, for a lane, and waits until it is let in.
pub(super) fn enter(key: &LaneKey, lane: u8) -> io::Result<UnixStream> {
    let dir = room_dir(&key.room);
    let meta = std::fs::symlink_metadata(&dir)?;
    let own = meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if !own {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not this user's own"));
    }
    let mut stream = UnixStream::connect(socket(&dir))?;
    check_peer(&stream)?;
    stream.write_all(&key.secret)?;
    stream.write_all(&[lane])?;
    stream.set_read_timeout(Some(OPEN_FOR))?;
    let mut joined = [0];
    stream.read_exact(&mut joined)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// The far end's answer to what the client says about lanes: it opens one room, once, on a thread that lets lanes in.
/// What it returns removes the room, if lanes have not all come before the copy is over.
pub(in crate::exec::copy) fn keep_room(
    role: CopyRole,
) -> (impl FnMut(&LaneHandle, LaneWord) + Send + 'static, impl FnOnce()) {
    let door: Arc<Mutex<Door>> = Arc::default();
    let behind = door.clone();
    let heard = move |handle: &LaneHandle, word: LaneWord| {
        let LaneWord::Wanted { lanes } = word else { return };
        let mut open = lock(&door);
        if std::mem::replace(&mut open.asked, true) {
            return;
        }
        // Without a room there are no lanes, and the copy goes on.
        match Room::open() {
            Ok(room) => {
                let (inside, handle_inside) = (door.clone(), handle.clone());
                let thread = std::thread::Builder::new()
                    .name("copy-lanes".to_owned())
                    .spawn(move || let_in(&room, role, lanes, &handle_inside, &inside));
                match thread {
                    Ok(thread) => open.thread = Some(thread),
                    Err(error) => tracing::debug!(%error, "no thread for the lanes of a copy"),
                }
            }
            Err(error) => tracing::debug!(%error, "no place for the lanes of a copy"),
        }
    };
    let close = move || {
        let mut door = lock(&behind);
        door.over = true;
        let thread = door.thread.take();
        drop(door);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of a copy panicked");
        }
    };
    (heard, close)
}

#[derive(Default)]
struct Door {
    asked: bool,
    over: bool,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Lets lanes in, each once, until all are here, the copy is over or the time is.
fn let_in(room: &Room, role: CopyRole, lanes: u8, handle: &LaneHandle, door: &Mutex<Door>) {
    // Here: it may have to wait, and who heard that they are wanted must read on.
    handle.say(&LaneWord::Ready(room.key.clone()));
    let until = Instant::now() + OPEN_FOR;
    let mut missing: Vec<u8> = (1..=lanes).collect();
    while !missing.is_empty() && !lock(door).over && Instant::now() < until {
        let admitted = room.accept().and_then(|stream| {
            let Some(mut stream) = stream else { return Ok(()) };
            let lane = room.admit(&stream)?;
            let place = missing.iter().position(|number| *number == lane);
            let place = place.ok_or_else(|| io::Error::other("a lane that is here or was not asked for"))?;
            stream.write_all(&[JOINED])?;
            missing.swap_remove(place);
            match role {
                CopyRole::Source => handle.write_over(lane, stream),
                CopyRole::Sink => handle.read_over(lane, stream),
            }
            Ok(())
        });
        if let Err(error) = admitted {
            tracing::debug!(%error, "somebody is not let in as a lane of a copy");
        }
    }
}

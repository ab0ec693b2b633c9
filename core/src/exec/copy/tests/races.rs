use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Swaps a name between a directory and a link to somewhere else, as fast as it can, until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Swapper {
    fn start(name: PathBuf, elsewhere: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let aside = name.with_extension("aside");
            let mut swaps = 0;
            while !stopped.load(Ordering::Relaxed) {
                let moved = fs::rename(&name, &aside);
                if symlink(&elsewhere, &name).is_ok() {
                    swaps += 1;
                }
                thread::yield_now();
                // The copy may have replaced the link by a directory of its own.
                if fs::remove_file(&name).is_err() {
                    _ = fs::remove_dir_all(&name);
                }
                if moved.is_ok() {
                    _ = fs::rename(&aside, &name);
                }
                thread::yield_now();
            }
            swaps
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("runs").join().expect("no panic")
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_while_it_is_written_lets_nothing_out() {
    let dir = temp();
    let root = dir.path();
    for number in 0..40 {
        write(root.join(format!("src/sub/{number}")), numbered(number));
    }
    fs::create_dir_all(root.join("dst/sub")).expect("makes");
    fs::create_dir(root.join("outside")).expect("makes");
    let swapper = Swapper::start(root.join("dst/sub"), root.join("outside"));
    for round in 0..60 {
        // Whatever fails of it: it may not be outside.
        let delete = SinkRequest { extraneous: Extraneous::Delete, ..into(root.join("dst")) };
        _ = try_copy(
            from([root.join("src/.")]),
            if round % 2 == 0 { into(root.join("dst")) } else { delete },
        );
        assert_eq!(listing(&root.join("outside")), [""; 0]);
    }
    assert!(swapper.stop() > 0);
    assert_eq!(listing(&root.join("outside")), [""; 0]);
}

#[test]
fn what_is_swapped_for_a_link_while_it_is_read_lets_nothing_in() {
    let dir = temp();
    let root = dir.path();
    for folder in 0..20 {
        write(root.join(format!("src/{folder}/file")), "inside");
        write(root.join(format!("src/{folder}/sub/f")), "inside");
    }
    write(root.join("outside/f"), "SECRET");
    let swap = |name: String, to: &str| Swapper::start(root.join("src").join(name), root.join(to));
    let swappers: Vec<_> = (0..20)
        .step_by(5)
        .flat_map(|n| [swap(format!("{n}/file"), "outside/f"), swap(format!("{n}/sub"), "outside")])
        .collect();
    for round in 0..60 {
        let target = root.join(format!("dst{round}"));
        _ = try_copy(from([root.join("src")]), into(&target));
        let mut folders = vec![target];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("is there");
                if meta.is_dir() {
                    folders.push(path);
                } else if meta.is_file() {
                    assert_eq!(fs::read(&path).expect("reads"), b"inside", "{}", path.display());
                }
            }
        }
    }
    for swapper in swappers {
        assert!(swapper.stop() > 0);
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_an_error_and_leaves_nothing() {
    let dir = temp();
    let (source, target) = (dir.path().join("log"), dir.path().join("dst"));
    write(&source, numbered(4 * 1024 * 1024));
    fs::create_dir(&target).expect("makes");
    let grown = source.clone();
    let copied = copy_through(from([&source]), into(&target), move |inner| Grow { inner, grown, seen: 0 });
    let copied = copied.expect("goes on");
    assert_eq!((copied.totals.files, copied.source_problems), (0, 1), "{:?}", copied.heard);
    assert!(copied.heard[0].starts_with("copy.mismatch"), "{:?}", copied.heard);
    assert_eq!(listing(&target), [""; 0]);
}

/// Adds to a file once its first bytes came through.
struct Grow {
    inner: PipeReader,
    grown: PathBuf,
    seen: usize,
}

impl Read for Grow {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(bytes)?;
        let before = self.seen;
        self.seen += count;
        if before < 500_000 && self.seen >= 500_000 {
            let mut file = fs::OpenOptions::new().append(true).open(&self.grown)?;
            file.write_all(b"more")?;
        }
        Ok(count)
    }
}

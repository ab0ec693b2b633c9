use proptest::prelude::*;

use super::*;

const MIB: usize = 1024 * 1024;

/// A pipe that ends after so many bytes, as if the other end had been killed.
struct Cut {
    inner: PipeReader,
    left: usize,
}

impl Read for Cut {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let room = into.len().min(self.left);
        let count = self.inner.read(&mut into[..room])?;
        self.left -= count;
        Ok(count)
    }
}

fn copy_cut(source: SourceRequest, sink: SinkRequest, left: usize) -> Result<Copied, CopyError> {
    let (to_sink, from_source) = pipe_pair();
    let (to_source, from_sink) = pipe_pair();
    let destination = sink.destination.clone();
    let sinking =
        thread::spawn(move || run_sink(Cut { inner: to_sink, left }, from_sink, sink, Arc::new(())));
    let sourced = run_source(to_source, from_source, source, Arc::new(()));
    let sunk = sinking.join().expect("no panic");
    await_free(&destination);
    let (totals, source_problems) = sunk?;
    assert!(sourced.is_ok());
    Ok(Copied { totals, source_problems, heard: vec![] })
}

/// Waits until nobody holds an unfinished copy below a folder: processes that other tests of this one start have its
/// descriptors too, until they become the program that they run.
fn await_free(dir: &Path) {
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            await_free(&path);
        } else if part::is_part_name(path.file_name().expect("a name")) {
            let file = fs::File::open(&path).expect("opens");
            malai_testkit::await_until("a free part", std::time::Duration::from_secs(30), || {
                file.try_lock().is_ok()
            });
        }
    }
}

fn parts(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").path());
    names.filter(|path| part::is_part_name(path.file_name().expect("a name"))).collect()
}

#[test]
fn a_copy_that_was_cut_goes_on_where_it_stopped_and_what_was_there_is_whole_until_then() {
    let dir = temp();
    let (source, target) = (dir.path().join("big"), dir.path().join("dst"));
    let bytes = numbered(8 * MIB + 123);
    write(&source, &bytes);
    write(target.join("big"), "what was there");
    copy_cut(from([&source]), into(&target), 5 * MIB).expect_err("was cut");
    assert_eq!(fs::read(target.join("big")).expect("is there"), b"what was there");
    assert_eq!(parts(&target).len(), 1);
    let totals = copy(from([&source]), into(&target)).clean();
    assert_eq!((totals.resumed, totals.bytes), (4 * MIB as u64, (4 * MIB + 123) as u64));
    assert!(fs::read(target.join("big")).expect("is there") == bytes);
    assert_eq!(parts(&target).len(), 0);
}

#[test]
fn a_source_that_changed_meanwhile_is_compared_and_not_trusted() {
    let dir = temp();
    let (source, target) = (dir.path().join("big"), dir.path().join("dst"));
    let mut bytes = numbered(6 * MIB);
    write(&source, &bytes);
    fs::create_dir(&target).expect("makes");
    copy_cut(from([&source]), into(&target), 5 * MIB).expect_err("was cut");
    bytes[2 * MIB + 7] ^= 1;
    bytes.truncate(5 * MIB + 1);
    write(&source, &bytes);
    let totals = copy(from([&source]), into(&target)).clean();
    assert_eq!(totals.resumed, 2 * MIB as u64);
    assert!(fs::read(target.join("big")).expect("is there") == bytes);
}

#[test]
fn two_copies_at_once_do_not_write_one_file() {
    let dir = temp();
    let (source, target) = (dir.path().join("f"), dir.path().join("dst"));
    write(&source, "f");
    fs::create_dir(&target).expect("makes");
    let folder = at::open_dir_path(&target, PathLinks::Follow).expect("opens");
    let mut held = part::Part::begin(&folder, "f".as_ref()).expect("begins");
    let also = part::Part::begin(&folder, "f".as_ref()).expect("there is a second name");
    let copied = copy(from([&source]), into(&target));
    assert_eq!(copied.totals.problems, 1);
    assert!(copied.heard.iter().any(|line| line.contains("another copy")), "{copied:?}");
    drop(also);
    copy(from([&source]), into(&target)).clean();
    // The one that is at work is as it was.
    held.write(b"ok").expect("writes");
    let time = malai_model::wire::copy::Mtime { secs: 1, nanos: 0 };
    let meta = malai_model::wire::copy::FileMeta { size: 2, mtime: time, mode: 0o600 };
    held.finish(&folder, "f".as_ref(), &meta).expect("finishes");
    assert_eq!(fs::read(target.join("f")).expect("is there"), b"ok");
}

#[test]
fn what_a_copy_has_that_still_holds_its_file_is_used_by_the_next() {
    let dir = temp();
    let (source, target) = (dir.path().join("big"), dir.path().join("dst"));
    let bytes = numbered(4 * MIB + 3);
    write(&source, &bytes);
    fs::create_dir(&target).expect("makes");
    let folder = at::open_dir_path(&target, PathLinks::Follow).expect("opens");
    let mut held = part::Part::begin(&folder, "big".as_ref()).expect("begins");
    held.write(&bytes[..3 * MIB + 5]).expect("writes");
    let totals = copy(from([&source]), into(&target)).clean();
    assert_eq!(totals.resumed, 3 * MIB as u64);
    assert!(fs::read(target.join("big")).expect("is there") == bytes);
    drop(held);
    // What it leaves behind goes with the next copy of the file.
    assert_eq!(parts(&target).len(), 1);
    write(&source, &bytes[1..]);
    copy(from([&source]), into(&target)).clean();
    assert_eq!(parts(&target).len(), 0);
}

#[test]
fn a_part_that_somebody_planted_is_not_written_through() {
    let dir = temp();
    let (source, target) = (dir.path().join("f"), dir.path().join("dst"));
    write(&source, numbered(2 * MIB));
    write(dir.path().join("victim"), "untouched");
    fs::create_dir(&target).expect("makes");
    let planted = target.join(part::part_name("f".as_ref()));
    for hard in [false, true] {
        if hard {
            fs::hard_link(dir.path().join("victim"), &planted).expect("links");
        } else {
            std::os::unix::fs::symlink(dir.path().join("victim"), &planted).expect("links");
        }
        copy(from([&source]), into(target.join("f"))).clean();
        assert_eq!(fs::read(dir.path().join("victim")).expect("is there"), b"untouched");
        assert_eq!(fs::read(target.join("f")).expect("is there").len(), 2 * MIB);
        fs::remove_file(target.join("f")).expect("removes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn wherever_it_is_cut_the_next_copy_makes_it_whole(cuts in prop::collection::vec(0..4 * MIB, 1..4)) {
        let dir = temp();
        let (source, target) = (dir.path().join("src"), dir.path().join("dst"));
        write(source.join("a"), numbered(1000));
        write(source.join("big"), numbered(3 * MIB + 5));
        for number in 0..20 {
            write(source.join(format!("d/{number}")), numbered(number * 100));
        }
        fs::create_dir(&target).expect("makes");
        for cut in cuts {
            // It may be cut behind the end: then it is whole.
            _ = copy_cut(from([&source]), into(&target), cut);
        }
        copy(from([&source]), into(&target)).clean();
        prop_assert_eq!(listing(&target.join("src")), listing(&source));
    }
}

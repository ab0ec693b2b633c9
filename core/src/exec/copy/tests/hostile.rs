use std::os::unix::fs::symlink;

use malai_model::wire::copy::*;

use super::*;
use crate::exec::copy::channel::{FrameReader, FrameWriter};

const TIME: Mtime = Mtime { secs: 1, nanos: 2 };

fn meta(size: u64) -> FileMeta {
    FileMeta { size, mtime: TIME, mode: 0o644 }
}

/// Sends bytes to a sink; returns what it says of it.
fn send_raw(target: &Path, bytes: Vec<u8>) -> Result<SinkTotals, CopyError> {
    let (to_sink, mut from_source) = pipe_pair();
    let (mut to_source, from_sink) = pipe_pair();
    let drain = thread::spawn(move || std::io::copy(&mut to_source, &mut std::io::sink()));
    let feed = thread::spawn(move || from_source.write_all(&bytes));
    let outcome = run_sink(to_sink, from_sink, into(target), Arc::new(()));
    drain.join().expect("no panic").expect("drains");
    // The sink may have stopped reading.
    _ = feed.join().expect("no panic");
    outcome.map(|(totals, _)| totals)
}

fn frames(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&Frame::Hello { version: VERSION, role: CopyRole::Source }, &mut bytes);
    frames.iter().for_each(|frame| encode(frame, &mut bytes));
    bytes
}

fn send(target: &Path, list: &[Frame<'_>]) -> Result<SinkTotals, CopyError> {
    send_raw(target, frames(list))
}

fn code(outcome: Result<SinkTotals, CopyError>) -> String {
    match outcome {
        Ok(totals) => format!("{totals:?}"),
        Err(error) => error.code().to_string(),
    }
}

fn data(bytes: &[u8]) -> ([u8; DIGEST], &[u8]) {
    (*blake3::hash(bytes).as_bytes(), bytes)
}

#[test]
fn names_that_lead_out_end_the_copy_and_write_nothing() {
    let dir = temp();
    let target = dir.path().join("dst");
    fs::create_dir(&target).expect("makes");
    for name in [&b".."[..], b"/tmp/x", b"../x", b"a/../../x", b"a\0", b".", b""] {
        let file = Frame::File { name, meta: meta(1) };
        assert_eq!(code(send(&target, &[file])), "wire.malformed", "{name:?}");
        let link = Frame::Link { name, target: b"x", mtime: TIME };
        assert_eq!(code(send(&target, &[link])), "wire.malformed", "{name:?}");
    }
    let deep = [
        Frame::Dir { name: b"a", mode: 0o755, mtime: TIME },
        Frame::Dir { name: b"", mode: 0o755, mtime: TIME },
    ];
    assert_eq!(code(send(&target, &deep)), "wire.malformed");
    assert_eq!(code(send(&target, &[Frame::Leave { complete: true }])), "wire.malformed");
    let names: Vec<_> = fs::read_dir(dir.path()).expect("lists").collect();
    assert_eq!(names.len(), 1, "nothing beside the destination");
}

#[test]
fn a_file_through_a_link_that_was_sent_before_stays_inside() {
    let dir = temp();
    let (target, outside) = (dir.path().join("dst"), dir.path().join("outside"));
    fs::create_dir(&target).expect("makes");
    fs::create_dir(&outside).expect("makes");
    let (digest, bytes) = data(b"evil");
    let totals = send(
        &target,
        &[
            Frame::Link { name: b"x", target: outside.as_os_str().as_bytes(), mtime: TIME },
            Frame::Dir { name: b"x", mode: 0o755, mtime: TIME },
            Frame::File { name: b"f", meta: meta(4) },
            Frame::Begin { id: 0, offset: 0, meta: meta(4) },
            Frame::Data { digest: &digest, bytes },
            Frame::End { end: FileEnd::Whole },
            Frame::Leave { complete: true },
            Frame::Done { problems: 0 },
        ],
    );
    assert_eq!(totals.expect("is well formed").problems, 0);
    assert_eq!(listing(&outside), [""; 0]);
    assert_eq!(fs::read(target.join("x/f")).expect("is inside"), b"evil");
    // A file through a link that was there: the link is replaced.
    symlink(outside.join("victim"), target.join("y")).expect("links");
    let file = [
        Frame::File { name: b"y", meta: meta(4) },
        Frame::Begin { id: 0, offset: 0, meta: meta(4) },
        Frame::Data { digest: &digest, bytes },
        Frame::End { end: FileEnd::Whole },
        Frame::Done { problems: 0 },
    ];
    send(&target, &file).expect("is well formed");
    assert!(fs::symlink_metadata(target.join("y")).expect("is there").is_file());
    assert_eq!(listing(&outside), [""; 0]);
}

#[test]
fn bytes_that_are_not_those_of_their_digest_never_become_a_file() {
    let dir = temp();
    let target = dir.path().join("dst");
    write(target.join("f"), "what was there");
    let totals = send(
        &target,
        &[
            Frame::File { name: b"f", meta: meta(3) },
            Frame::Begin { id: 0, offset: 0, meta: meta(3) },
            Frame::Data { digest: &[0; DIGEST], bytes: b"bad" },
            Frame::End { end: FileEnd::Whole },
            Frame::Done { problems: 0 },
        ],
    );
    let totals = totals.expect("is well formed");
    assert_eq!((totals.files, totals.problems), (0, 1));
    let names: Vec<_> = fs::read_dir(&target).expect("lists").collect();
    assert_eq!(
        (names.len(), fs::read(target.join("f")).expect("is there").as_slice()),
        (1, &b"what was there"[..])
    );
}

#[test]
fn what_does_not_add_up_ends_the_copy() {
    let dir = temp();
    let target = dir.path().join("dst");
    fs::create_dir(&target).expect("makes");
    let (digest, bytes) = data(b"four");
    let file = Frame::File { name: b"f", meta: meta(4) };
    let begin = Frame::Begin { id: 0, offset: 0, meta: meta(4) };
    let end = Frame::End { end: FileEnd::Whole };
    let bad: &[&[Frame<'_>]] = &[
        std::slice::from_ref(&begin),
        &[file.clone(), Frame::Begin { id: 1, offset: 0, meta: meta(4) }],
        &[file.clone(), Frame::Begin { id: 0, offset: CHUNK, meta: meta(CHUNK) }],
        &[file.clone(), begin.clone(), begin.clone()],
        &[file.clone(), begin.clone(), end.clone()],
        &[
            file.clone(),
            Frame::Begin { id: 0, offset: 0, meta: meta(3) },
            Frame::Data { digest: &digest, bytes },
        ],
        &[Frame::Data { digest: &digest, bytes }],
        &[end],
        &[file.clone(), Frame::Same { id: 0 }],
        &[file.clone(), Frame::Done { problems: 0 }],
        &[file.clone(), begin.clone(), Frame::Done { problems: 0 }],
        &[Frame::Dir { name: b"d", mode: 0o755, mtime: TIME }, Frame::Done { problems: 0 }],
        &[Frame::Have { id: 0 }],
    ];
    for list in bad {
        assert_eq!(code(send(&target, list)), "wire.malformed", "{list:?}");
    }
    let mut huge = frames(&[]);
    huge.extend_from_slice(&[0x16, 0xff, 0xff, 0xff]);
    assert_eq!(code(send_raw(&target, huge)), "wire.malformed");
    assert_eq!(code(send_raw(&target, b"Last login: yesterday\n".to_vec())), "wire.malformed");
}

#[test]
fn whoever_names_without_sending_is_stopped() {
    let dir = temp();
    let target = dir.path().join("dst");
    fs::create_dir(&target).expect("makes");
    let names: Vec<String> = (0..3 * MAX_UNANSWERED).map(|number| number.to_string()).collect();
    let files: Vec<_> =
        names.iter().map(|name| Frame::File { name: name.as_bytes(), meta: meta(1) }).collect();
    assert_eq!(code(send(&target, &files)), "wire.malformed");
    let dirs: Vec<_> =
        (0..2 * MAX_DEPTH).map(|_| Frame::Dir { name: b"d", mode: 0o755, mtime: TIME }).collect();
    assert_eq!(code(send(&target, &dirs)), "wire.malformed");
}

#[test]
fn a_name_that_is_the_part_of_another_is_refused_and_a_name_twice_is_written_twice() {
    let dir = temp();
    let target = dir.path().join("dst");
    fs::create_dir(&target).expect("makes");
    let part = part::part_name("f".as_ref());
    let (digest, bytes) = data(b"four");
    let outcome = send(
        &target,
        &[
            Frame::File { name: b"f", meta: meta(4) },
            Frame::File { name: part.as_bytes(), meta: meta(4) },
            Frame::Link { name: part.as_bytes(), target: b"x", mtime: TIME },
            Frame::File { name: b"f", meta: meta(4) },
            Frame::Begin { id: 0, offset: 0, meta: meta(4) },
            Frame::Data { digest: &digest, bytes },
            Frame::End { end: FileEnd::Whole },
            Frame::Begin { id: 2, offset: 0, meta: meta(4) },
            Frame::Data { digest: &digest, bytes },
            Frame::End { end: FileEnd::Whole },
            Frame::Done { problems: 0 },
        ],
    );
    let totals = outcome.expect("is well formed");
    assert_eq!((totals.files, totals.problems), (2, 2));
    assert_eq!(listing(&target).len(), 1);
}

#[test]
fn a_source_that_sends_what_nobody_asked_for_is_ended_before_anything_is_written() {
    let dir = temp();
    let target = dir.path().join("home");
    fs::create_dir(&target).expect("makes");
    write(target.join("kept"), "mine");
    let asked = || Some(Roots::of(&["notes.txt".into()]));
    let sink = |list: &[Frame<'_>], extraneous| {
        let (to_sink, mut from_source) = pipe_pair();
        let (mut to_source, from_sink) = pipe_pair();
        let drain = thread::spawn(move || std::io::copy(&mut to_source, &mut std::io::sink()));
        let bytes = frames(list);
        let feed = thread::spawn(move || from_source.write_all(&bytes));
        let request = SinkRequest { roots: asked(), extraneous, ..into(&target) };
        let outcome = run_sink(to_sink, from_sink, request, Arc::new(()));
        drain.join().expect("no panic").expect("drains");
        _ = feed.join().expect("no panic");
        code(outcome.map(|(totals, _)| totals))
    };
    let (digest, bytes) = data(b"evil");
    let other = [
        Frame::File { name: b".bashrc", meta: meta(4) },
        Frame::Begin { id: 0, offset: 0, meta: meta(4) },
        Frame::Data { digest: &digest, bytes },
        Frame::End { end: FileEnd::Whole },
        Frame::Done { problems: 0 },
    ];
    assert_eq!(sink(&other, Extraneous::Keep), "copy.outside");
    let link = [Frame::Link { name: b"notes.txt", target: b"/etc/passwd", mtime: TIME }];
    assert_eq!(sink(&link, Extraneous::Keep), "copy.outside");
    // All that is there would be deleted.
    let everything = [
        Frame::Dir { name: b"", mode: 0o755, mtime: TIME },
        Frame::Leave { complete: true },
        Frame::Done { problems: 0 },
    ];
    assert_eq!(sink(&everything, Extraneous::Delete), "copy.outside");
    assert_eq!(listing(&target).len(), 1);

    // The same between two machines: it is not passed on.
    let (mut source, _sink) = CopyWatch::pair(Arc::new(()), asked().expect("some"));
    let hello = frames(&[]);
    source.see(&hello).expect("is a greeting");
    let mut bytes = Vec::new();
    encode(&other[0], &mut bytes);
    let (first, rest) = bytes.split_at(3);
    source.see(first).expect("says nothing yet");
    assert_eq!(source.see(rest).expect_err("was not asked for").code().to_string(), "copy.outside");
    // Nor is a word that would make the other end read what follows as something else.
    for word in 0x80..=0x82 {
        let (mut source, _sink) = CopyWatch::pair(Arc::new(()), asked().expect("some"));
        source.see(&hello).expect("is a greeting");
        let refused = source.see(&[word, 0, 0, 0]).expect_err("is no frame of a source");
        assert_eq!(refused.code().to_string(), "wire.malformed", "{word:#x}");
    }
}

#[test]
fn whoever_looks_on_between_two_machines_is_told_what_it_was_that_nobody_asked_for() {
    let file = |name| Frame::File { name, meta: meta(1) };
    let dir = |name| Frame::Dir { name, mode: 0o755, mtime: TIME };
    let link = |name| Frame::Link { name, target: b"/etc/passwd", mtime: TIME };
    let fatal = Frame::Fatal { code: "copy.storage", message: "something else" };
    let asked =
        [dir(b"site"), file(b".bashrc"), link(b"l"), Frame::Leave { complete: true }, file(b"notes.txt")];
    for (frame, named) in [
        (file(b".bashrc"), ".bashrc"),
        (dir(b".ssh"), ".ssh"),
        (dir(b""), "\"\""),
        (link(b"notes.txt"), "notes.txt"),
        (file(b"\x1b[2J\r\n\xff"), "[2J"),
    ] {
        let (mut source, sink) =
            CopyWatch::pair(Arc::new(()), Roots::of(&["notes.txt".into(), "site".into()]));
        source.see(&frames(&asked)).expect("was asked for");
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes);
        // What it says of it afterwards does not count.
        encode(&fatal, &mut bytes);
        let refused = source.see(&bytes).expect_err("was not asked for");
        let told = refused.to_string();
        assert_eq!(refused.code().to_string(), "copy.outside", "{told}");
        assert!(told.contains(named) && !told.chars().any(char::is_control), "{told:?}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("do not trust")));
        assert!(sink.failure().is_none() && sink.outcome().is_none());
    }
}

#[test]
fn where_paths_are_restricted_a_link_leads_nowhere() {
    let dir = temp();
    let (site, outside) = (dir.path().join("site"), dir.path().join("outside"));
    fs::create_dir_all(outside.join("deep")).expect("makes");
    fs::create_dir(&site).expect("makes");
    write(outside.join("secret"), "of others");
    symlink(&outside, site.join("way")).expect("links");
    symlink(outside.join("secret"), site.join("file")).expect("links");
    symlink(dir.path(), dir.path().join("round")).expect("links");
    let source = dir.path().join("new");
    write(&source, "new");
    let refuse = PathLinks::Refuse;
    for path in
        ["way", "way/", "way/new", "way/deep", "way/made/", "file", "../round/site/x", "../round/site/"]
    {
        let sink = SinkRequest { path_links: refuse, ..into(site.join(path)) };
        let error = try_copy(from([&source]), sink).expect_err("is refused");
        assert_eq!(error.code().to_string(), "copy.storage", "{path}");
    }
    for path in ["way", "way/.", "way/secret", "file", "../round/site"] {
        let request = SourceRequest { path_links: refuse, ..from([site.join(path)]) };
        let copied = copy(request, into(dir.path().join("got/")));
        assert_eq!((copied.source_problems, copied.totals.files), (1, 0), "{path}");
        assert!(copied.heard[0].contains("a symbolic link lies in the path"), "{:?}", copied.heard);
    }
    assert_eq!(listing(&outside).len(), 2, "nothing was written there");
    // What needs no link goes, down and up; without a restriction a link is followed as ever.
    for path in ["", "sub/", "sub/renamed"] {
        copy(from([&source]), SinkRequest { path_links: refuse, ..into(site.join(path)) }).clean();
    }
    copy(SourceRequest { path_links: refuse, ..from([site.join("sub")]) }, into(dir.path().join("got/")))
        .clean();
    copy(SourceRequest { path_links: refuse, ..from([site.join("new")]) }, into(dir.path().join("got/")))
        .clean();
    copy(from([&source]), into(site.join("way/new"))).clean();
    assert_eq!(fs::read(outside.join("new")).expect("is there"), b"new");
}

/// A source whose sink says these things after its greeting.
fn answer(root: &Path, list: &[Frame<'_>]) -> String {
    let (to_sink, from_source) = pipe_pair();
    let (to_source, from_sink) = pipe_pair();
    let mut sink = FrameWriter::new(from_sink);
    sink.greet(CopyRole::Sink).expect("greets");
    list.iter().for_each(|frame| sink.send(frame).expect("sends"));
    sink.flush().expect("sends");
    let drain = thread::spawn(move || {
        let mut reader = FrameReader::new(to_sink);
        while reader.next().is_ok() {}
        // Held until the source has heard everything.
        drop(sink);
    });
    let outcome = run_source(to_source, from_source, from([root]), Arc::new(()));
    drain.join().expect("no panic");
    code(outcome.map(|(totals, _)| totals))
}

#[test]
fn a_hostile_sink_gets_nothing_but_what_was_named() {
    let dir = temp();
    let root = dir.path().join("f");
    write(&root, numbered(100));
    let digests = [0; DIGEST];
    let bad: &[&[Frame<'_>]] = &[
        &[Frame::Want { id: 1, basis: Basis::None }],
        &[Frame::Want { id: 0, basis: Basis::None }, Frame::Want { id: 0, basis: Basis::None }],
        &[Frame::Want { id: 0, basis: Basis::Part(CHUNK) }],
        &[Frame::Want { id: 0, basis: Basis::Part(MAX_SIZE) }],
        &[Frame::Want { id: 0, basis: Basis::Whole(100) }],
        &[Frame::Basis { id: 1, digests: &digests }],
        &[Frame::Have { id: 7 }],
        &[Frame::File { name: b"x", meta: meta(1) }],
    ];
    for list in bad {
        assert_eq!(answer(&root, list), "wire.malformed", "{list:?}");
    }
    assert_eq!(answer(&root, &[Frame::Fatal { code: "copy.storage", message: "no" }]), "copy.storage");
}

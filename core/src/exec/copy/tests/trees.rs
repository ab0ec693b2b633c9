use std::ffi::OsStr;
use std::os::unix::fs::symlink;

use super::*;

/// A tree with a bit of everything that is copied.
fn plant(root: &Path) {
    write(root.join("empty"), "");
    write(root.join("a/small"), "small");
    write(root.join("a/b/c/deep"), numbered(3 * 1024 * 1024 + 17));
    write(root.join("a/secret"), "s");
    set_mode(root.join("a/secret"), 0o600);
    write(root.join("run"), "#!/bin/sh\n");
    set_mode(root.join("run"), 0o755);
    write(root.join(OsStr::from_bytes(b"not-\xff-utf8\n")), "bytes");
    fs::create_dir_all(root.join("hollow")).expect("makes");
    symlink("a/small", root.join("link")).expect("links");
    symlink("/nowhere/at/all", root.join("a/dangling")).expect("links");
    for name in ["empty", "a/b/c/deep", "a/b", "hollow"] {
        set_time(root.join(name), 1_234_567_890, 123_456_789);
    }
    set_mode(root.join("a/b"), 0o500);
}

#[test]
fn a_tree_arrives_as_it_is() {
    let dir = temp();
    let (source, target) = (dir.path().join("src"), dir.path().join("dst"));
    plant(&source);
    // The destination is not there: it is the tree.
    let totals = copy(from([&source]), into(&target)).clean();
    assert_eq!(listing(&target), listing(&source));
    assert_eq!(totals.files, 8);
    // It is there: the tree goes into it.
    copy(from([&source]), into(&target)).clean();
    assert_eq!(listing(&target.join("src")), listing(&source));
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let dir = temp();
    let (source, target) = (dir.path().join("src"), dir.path().join("dst"));
    plant(&source);
    fs::create_dir(&target).expect("makes");
    copy(from([source.join(".")]), into(&target)).clean();
    write(source.join("a/small"), "SMALL");
    set_mode(source.join("empty"), 0o640);
    let totals = copy(from([source.join(".")]), into(&target)).clean();
    assert_eq!((totals.files, totals.skipped, totals.bytes), (1, 7, 5));
    assert_eq!(listing(&target), listing(&source));
}

#[test]
fn checksum_finds_what_size_and_time_hide_and_sends_nothing_that_is_the_same() {
    let dir = temp();
    let (source, target) = (dir.path().join("src"), dir.path().join("dst"));
    write(source.join("big"), numbered(2_500_000));
    write(source.join("f"), "one");
    copy(from([&source]), into(&target)).clean();
    write(source.join("f"), "two");
    for root in [&source, &target] {
        set_time(root.join("f"), 1000, 0);
    }
    // Newer, but the same.
    set_time(source.join("big"), 2000, 0);
    fs::create_dir(dir.path().join("two")).expect("makes");
    let request = || from([source.join(".")]);
    assert_eq!(copy(request(), SinkRequest { compare: Compare::Content, ..into(&target) }).clean().bytes, 3);
    assert_eq!(listing(&target), listing(&source));
    let again = copy(request(), SinkRequest { compare: Compare::Content, ..into(&target) }).clean();
    assert_eq!((again.bytes, again.skipped), (0, 2));
}

#[test]
fn destinations_mean_what_they_mean_to_cp() {
    let dir = temp();
    let root = dir.path();
    write(root.join("f"), "f");
    write(root.join("g"), "g");
    let at = |name: &str| root.join(name);
    copy(from([at("f")]), into(at("new"))).clean();
    assert_eq!(fs::read(at("new")).expect("is there"), b"f");
    copy(from([at("f"), at("g")]), into(at("made/"))).clean();
    assert_eq!(fs::read(at("made/g")).expect("is there"), b"g");
    copy(from([at("g")]), into(at("made"))).clean();
    copy(from([at("g")]), into(at("new"))).clean();
    assert_eq!(fs::read(at("new")).expect("is there"), b"g");
    for bad in ["none/x", "f/", "f/x"] {
        let error = try_copy(from([at("g")]), into(at(bad))).expect_err("cannot be");
        assert_eq!(error.code().as_str(), "copy.storage", "{bad}: {error}");
    }
    let error = try_copy(from([at("f"), at("g")]), into(at("one"))).expect_err("two files of one name");
    assert_eq!(error.code().as_str(), "wire.malformed");
}

#[test]
fn a_root_that_is_a_link_is_followed_and_links_below_it_only_if_asked() {
    let dir = temp();
    let root = dir.path();
    write(root.join("real/f"), "f");
    symlink("real", root.join("way")).expect("links");
    symlink("f", root.join("real/l")).expect("links");
    symlink("..", root.join("real/loop")).expect("links");
    copy(from([root.join("way")]), into(root.join("kept"))).clean();
    assert!(fs::symlink_metadata(root.join("kept/l")).expect("is there").is_symlink());
    let inner = root.join("real/l");
    copy(from([&inner]), into(root.join("file"))).clean();
    assert_eq!(fs::read(root.join("file")).expect("is there"), b"f");
    fs::remove_file(root.join("real/loop")).expect("removes");
    symlink(".", root.join("real/loop")).expect("links");
    let copied =
        copy(SourceRequest { links: Links::Follow, ..from([root.join("way")]) }, into(root.join("followed")));
    assert_eq!(copied.source_problems, 1, "the loop: {:?}", copied.heard);
    assert!(fs::symlink_metadata(root.join("followed/l")).expect("is there").is_file());
}

#[test]
fn what_cannot_be_copied_is_told_and_the_rest_goes_on() {
    let dir = temp();
    let root = dir.path();
    write(root.join("src/ok"), "ok");
    write(root.join("src/clash"), "a file");
    write(root.join("dst/clash/x"), "a directory");
    nix::unistd::mkfifo(&root.join("src/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
    let copied = copy(from([root.join("src/."), root.join("none")]), into(root.join("dst")));
    assert_eq!((copied.totals.files, copied.totals.problems, copied.source_problems), (1, 1, 2));
    assert!(
        copied.heard.iter().any(|line| line.contains("fifo") && line.contains("not copied")),
        "{copied:?}"
    );
    assert!(copied.heard.iter().any(|line| line.contains("dst/clash")), "{copied:?}");
    assert!(root.join("dst/ok").exists() && root.join("dst/clash/x").exists());
}

#[test]
fn delete_removes_what_the_source_has_not_and_nothing_else() {
    let dir = temp();
    let root = dir.path();
    write(root.join("outside/f"), "f");
    write(root.join("src/keep"), "k");
    write(root.join("src/sub/new"), "n");
    write(root.join("dst/sub/old"), "o");
    write(root.join("dst/gone/deep/f"), "g");
    write(root.join("dst/stale"), "s");
    symlink(root.join("outside"), root.join("dst/way")).expect("links");
    nix::unistd::mkfifo(&root.join("src/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
    write(root.join("dst/fifo"), "of the same name");
    let delete = || SinkRequest { extraneous: Extraneous::Delete, ..into(root.join("dst")) };
    let copied = copy(from([root.join("src/.")]), delete());
    assert_eq!((copied.totals.deleted, copied.totals.problems), (6, 0), "{:?}", copied.heard);
    assert!(root.join("outside/f").exists(), "a link is removed, not followed");
    assert!(root.join("dst/fifo").exists(), "the source has something of that name");
    assert!(!root.join("dst/gone").exists() && !root.join("dst/sub/old").exists());
    // Beside a tree that is copied by name, nothing is touched.
    write(root.join("dst/beside"), "b");
    write(root.join("dst/src/old"), "o");
    copy(from([root.join("src")]), delete());
    assert!(root.join("dst/beside").exists() && !root.join("dst/src/old").exists());
}

#[test]
fn nothing_is_deleted_after_the_source_could_not_be_read() {
    let dir = temp();
    let root = dir.path();
    write(root.join("src/f"), "f");
    write(root.join("dst/only-here"), "o");
    let delete = SinkRequest { extraneous: Extraneous::Delete, ..into(root.join("dst")) };
    // The first root is not there: from then on nobody knows what the source has.
    let copied = copy(from([root.join("none"), root.join("src/.")]), delete);
    assert_eq!((copied.totals.deleted, copied.source_problems), (0, 1));
    assert!(root.join("dst/only-here").exists());
}

#[test]
fn thousands_of_files_in_many_directories_arrive_in_order() {
    let dir = temp();
    let (source, target) = (dir.path().join("src"), dir.path().join("dst"));
    for number in 0..3000 {
        write(source.join(format!("{}/{}/f{number}", number % 500, number % 7)), format!("{number}"));
    }
    let totals = copy(from([&source]), into(&target)).clean();
    assert_eq!(totals.files, 3000);
    assert_eq!(listing(&target), listing(&source));
}

#[test]
fn a_tree_that_is_too_deep_is_copied_as_far_as_it_goes() {
    let dir = temp();
    let mut path = dir.path().join("src");
    for _ in 0..malai_model::wire::copy::MAX_DEPTH + 3 {
        path.push("d");
    }
    fs::create_dir_all(&path).expect("makes");
    write(dir.path().join("src/d/f"), "f");
    let copied = copy(from([dir.path().join("src")]), into(dir.path().join("dst")));
    assert_eq!((copied.source_problems, copied.totals.problems), (1, 0), "{:?}", copied.heard);
    assert!(dir.path().join("dst/d/f").exists());
}

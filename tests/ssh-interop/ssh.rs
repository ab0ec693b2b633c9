//! `ssh` itself, through a machine's `ssh` service: `ProxyCommand`, bulk, multiplexing; and `malai stdio` alone.

use std::io::{Read, Write};
use std::net::TcpListener;

use malai_testkit::await_until;
use sha2::{Digest, Sha256};

use crate::rig::{Rig, SOON, Sshd, guests_config, is_denied, noise, tool};
use crate::tools;

#[test]
fn ssh_runs_through_a_machines_service() {
    let Some([sshd, keygen, ssh]) = tools::all(["sshd", "ssh-keygen", "ssh"]) else { return };
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let server = Sshd::start(&sshd, &keygen, dir.path().join("sshd"));
    let rig = Rig::new(&server.rule());
    let config = server.client_config(&rig);
    let run = |words: &[&str]| tool(rig.laptop(), &ssh, ["-F", &config].iter().chain(words));
    let output = run(&["web01.company", "echo out; echo err >&2; exit 7"]).run().exits(7);
    assert_eq!((output.text(), output.stderr_text().trim()), ("out", "err"));

    // 64 MiB there and back.
    let bytes = noise(64 << 20);
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    let sent = run(&["web01.company", "sha256sum"]).stdin(bytes.clone()).run().ok();
    assert_eq!(sent.text().split(' ').next(), Some(&*digest));
    let back = run(&["web01.company", "cat"]).stdin(bytes).digest_stdout().run().ok();
    assert_eq!((back.stdout_len, back.stdout_sha256), (64 << 20, Some(digest)));

    // One connection for several calls.
    let socket = rig.text("mux");
    let master = run(&["-M", "-N", "-S", &socket, "web01.company"]).spawn();
    await_until("the control socket", SOON, || rig.path("mux").exists());
    let before = server.connections();
    for _ in 0..3 {
        let output = run(&["-S", &socket, "web01.company", "echo again"]).run().ok();
        assert_eq!(output.text(), "again");
    }
    assert_eq!(server.connections(), before);
    run(&["-S", &socket, "-O", "exit", "web01.company"]).run().ok();
    master.wait(SOON);

    // A path that a shell and ssh would each take apart.
    let odd = rig.path("it's 50% $HOME %h");
    std::os::unix::fs::symlink(rig.laptop().path(), &odd).expect("a link");
    let words = ["--home".as_ref(), odd.as_os_str(), "ssh-config".as_ref()];
    let hosts = rig.laptop().command(words).run().ok().text().to_owned();
    assert!(hosts.contains("50%%"), "{hosts}");
    let own = std::fs::read_to_string(&config).expect("a configuration");
    rig.write("odd_hosts.conf", hosts);
    let own = own.replace("/hosts.conf", "/odd_hosts.conf");
    let odd_config = rig.write("odd_config", own).display().to_string();
    tool(rig.laptop(), &ssh, ["-F", &odd_config, "web01.company", "true"]).run().ok();

    // Who has no right to the service gets nothing, and sshd hears of nothing.
    let before = server.connections();
    let guests = guests_config(&rig, &config);
    let marker = rig.text("srv/marker");
    let words = ["-F", &guests, "web01.company", "touch", &marker];
    let denied = tool(rig.guest(), &ssh, words).run();
    is_denied(&denied, 255);
    assert!(denied.stderr_text().contains("reach the service ssh"), "{denied:?}");
    assert!(!rig.path("srv/marker").exists() && server.connections() == before);
    tool(rig.laptop(), &ssh, ["-F", &config, "web01.company", "touch", &marker]).run().ok();
    assert!(rig.path("srv/marker").exists());
}

#[test]
fn stdio_ends_each_direction_for_itself_and_says_what_failed() {
    let service = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = service.local_addr().expect("an address").port();
    let rules = format!(
        "[service.echo]\nmachine = \"web01\"\nprotocol = \"tcp\"\nport = {port}\nallow_from = \"laptop, web01\"\n"
    );
    let mut rig = Rig::new(&rules);
    // The caller ends first.
    let running = rig.laptop().command(["stdio", "echo.company"]).stdin("question").spawn();
    let (mut tcp, _) = service.accept().expect("malai connects");
    let mut heard = String::new();
    tcp.read_to_string(&mut heard).expect("reads to the end");
    assert_eq!(heard, "question");
    tcp.write_all(b"answer").expect("writes");
    drop(tcp);
    assert_eq!(running.wait(SOON).ok().text(), "answer");
    // The service ends first: whoever reads stdout sees its end, and what is written still arrives.
    let mut running = rig.laptop().command(["stdio", "echo.company"]).open_stdin().spawn();
    let (mut tcp, _) = service.accept().expect("malai connects");
    tcp.write_all(b"bye").expect("writes");
    tcp.shutdown(std::net::Shutdown::Write).expect("ends");
    await_until("the end of stdout", SOON, || running.stdout_has_ended());
    assert!(!running.has_ended());
    running.write("one more");
    running.close_stdin();
    let mut heard = String::new();
    tcp.read_to_string(&mut heard).expect("reads to the end");
    drop(tcp);
    assert_eq!((heard.as_str(), running.wait(SOON).ok().text()), ("one more", "bye"));
    // Without a daemon, and from the hosting machine itself.
    rig.cluster.member("laptop").stop();
    for name in ["laptop", "web01"] {
        let running = rig.cluster.home(name).command(["stdio", "echo.company"]).stdin("question").spawn();
        let (mut tcp, _) = service.accept().expect("malai connects");
        let mut heard = String::new();
        tcp.read_to_string(&mut heard).expect("reads to the end");
        tcp.write_all(heard.as_bytes()).expect("writes");
        drop(tcp);
        assert_eq!(running.wait(SOON).ok().text(), "question", "{name}");
    }
    // Nobody there, no right, no such thing: 255 and one line each.
    drop(service);
    rig.laptop().malai(["--json", "stdio", "echo.company"]).exits(255).fails_with("service.unreachable");
    let by_id = format!("{}.company", rig.cluster.id52("web01"));
    rig.guest().malai(["--json", "stdio", &by_id]).exits(255).fails_with("acl.denied");
    rig.guest().malai(["--json", "stdio", "ssh.web01.company"]).exits(255).fails_with("acl.denied");
    rig.guest().malai(["--json", "stdio", "echo.company"]).exits(255).fails_with("address.unknown_machine");
    rig.laptop().malai(["--json", "stdio", "echo.nowhere"]).exits(255).fails_with("address.unknown_cluster");
}

#[test]
fn a_right_to_a_service_that_is_taken_away_ends_the_connection() {
    let service = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = service.local_addr().expect("an address").port();
    let rig = Rig::new(&format!("[machine.web01.tcp.ssh]\nport = {port}\nallow_from = \"laptop\"\n"));
    let mut running = rig.laptop().command(["--json", "stdio", "web01.company"]).open_stdin().spawn();
    let (mut tcp, _) = service.accept().expect("malai connects");
    tcp.write_all(b"up\n").expect("writes");
    running.wait_for_line(SOON, |line| line == "up");
    rig.cluster.edit(|text| text.replace("allow_from = \"laptop\"", "allow_from = \"guest\""));
    await_until("its end", SOON, || running.has_ended());
    assert!(tcp.read(&mut [0; 1]).is_err(), "a reset, not an end");
    running.wait(SOON).exits(255).fails_with("acl.revoked");
}

#[test]
fn ssh_config_names_the_machines_that_this_device_may_reach_by_ssh() {
    let rules = "[machine.web01.tcp.ssh]\nport = 22\nallow_from = \"laptop\"\n\
                 [machine.guest.http.ssh]\nport = 80\nallow_from = \"laptop\"\n\
                 [service.db]\nmachine = \"guest\"\nprotocol = \"tcp\"\nport = 5432\nallow_from = \"laptop, guest\"\n";
    let rig = Rig::new(rules);
    let printed = rig.laptop().malai(["ssh-config"]).ok();
    let hosts: Vec<&str> = printed.text().lines().filter_map(|line| line.strip_prefix("Host ")).collect();
    assert_eq!(hosts, ["web01.company"], "{}", printed.text());
    let id = rig.cluster.id52("web01");
    let home = rig.laptop().path().display().to_string();
    for line in [
        format!("    HostKeyAlias malai-{id}"),
        format!("    ProxyCommand {} --home {home} stdio ssh.web01.company", rig.malai()),
    ] {
        assert!(printed.text().lines().any(|printed| printed == line), "{line}\n{}", printed.text());
    }
    let json = rig.laptop().malai(["--json", "ssh-config", "company"]).ok().json();
    assert_eq!(json["items"][0]["address"], "ssh.web01.company");
    let none = rig.guest().malai(["ssh-config", "company"]).ok();
    assert!(!none.text().contains("\nHost ") && none.stderr_text().contains("note:"), "{none:?}");
    rig.guest().malai(["--json", "ssh-config", "nowhere"]).exits(1).fails_with("home.unknown_cluster");
}

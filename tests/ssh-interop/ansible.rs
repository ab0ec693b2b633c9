//! `ansible`: a ping and a copy.

use std::path::Path;

use malai_testkit::{Output, TestHome};

use crate::rig::{Rig, tool};
use crate::tools;

fn ansible(rig: &Rig, program: &Path, home: &TestHome, words: &[&str]) -> Output {
    let inventory = format!(
        "web01.company ansible_ssh_executable={rsh} ansible_sftp_extra_args='-S {rsh}' ansible_remote_tmp={tmp} \
         ansible_python_interpreter=/usr/bin/python3\n",
        rsh = rig.malai_rsh.display(),
        tmp = rig.text("remote-tmp"),
    );
    let inventory = rig.write("inventory", inventory).display().to_string();
    let all = ["-i", &inventory, "web01.company"];
    tool(home, program, all.iter().chain(words))
        .env("ANSIBLE_LOCAL_TEMP", rig.text("local-tmp"))
        .env("ANSIBLE_HOME", rig.text("ansible-home"))
        .env("ANSIBLE_SSH_CONTROL_PATH_DIR", rig.text("cp"))
        .run()
}

#[test]
fn ansible_pings_and_copies() {
    let Some([program, _, _]) = tools::all(["ansible", "python3", "sftp"]) else { return };
    // Its modules are scripts for a shell: the right to one is the right to everything.
    let rig = Rig::with_machine("allow_from = \"laptop\"", "");
    let ping = ansible(&rig, &program, rig.laptop(), &["-m", "ping"]).ok();
    assert!(ping.text().contains("SUCCESS") && ping.text().contains("\"pong\""), "{ping:?}");
    rig.write("what", b"it's copied\n");
    let copy = format!("src={} dest={} mode=0640", rig.text("what"), rig.text("srv/copied"));
    let copied = ansible(&rig, &program, rig.laptop(), &["-m", "copy", "-a", &copy]).ok();
    assert!(copied.text().contains("CHANGED"), "{copied:?}");
    assert_eq!(rig.read("srv/copied"), b"it's copied\n");

    let copy = copy.replace("srv/copied", "srv/denied");
    for words in [&["-m", "ping"][..], &["-m", "copy", "-a", &copy]] {
        let denied = ansible(&rig, &program, rig.guest(), words);
        // 4: unreachable, which is what a status of 255 is to it.
        assert_eq!(denied.code, Some(4), "{denied:?}");
        assert!(denied.text().contains("not allowed on web01"), "{denied:?}");
        assert!(!denied.text().contains("pong"), "{denied:?}");
    }
    assert!(!rig.path("srv/denied").exists());
}

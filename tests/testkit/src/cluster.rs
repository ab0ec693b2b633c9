//! A whole cluster, ready for commands.

use std::net::UdpSocket;

use crate::{DEADLINE, Daemon, TestHome, TestNet, UdpLink, await_until};

/// One device of a [`Cluster`] and its daemon, unless that was stopped.
#[derive(Debug)]
pub struct Member {
    /// The device.
    pub home: TestHome,
    /// Its daemon.
    pub daemon: Option<Daemon>,
}

impl Member {
    /// Stops the daemon, if it runs.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Starts the daemon, if it does not run.
    pub fn start(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.home.start_daemon());
        }
    }
}

/// A manager and machines that joined it by invite, all of them with a running daemon.
#[derive(Debug)]
pub struct Cluster {
    /// The alias that every home uses for the cluster.
    pub alias: String,
    /// The device that holds the root.
    pub manager: Member,
    /// The machines, in the order of their names as given.
    pub machines: Vec<Member>,
}

impl Cluster {
    /// Makes a cluster `company` whose machines know their names and have no rights yet.
    ///
    /// # Panics
    ///
    /// When any step of it fails.
    pub fn new(net: &TestNet, machines: &[&str]) -> Self {
        Self::named(net, "company", "manager", machines)
    }

    /// Makes a cluster with another alias and another name for its manager's home.
    ///
    /// # Panics
    ///
    /// When any step of it fails.
    pub fn named(net: &TestNet, alias: &str, manager: &str, machines: &[&str]) -> Self {
        let manager = TestHome::new(net, manager);
        manager.malai(["cluster", "init", alias]).ok();
        let daemon = manager.start_daemon();
        let mut cluster = Self {
            alias: alias.to_owned(),
            manager: Member { home: manager, daemon: Some(daemon) },
            machines: vec![],
        };
        if !machines.is_empty() {
            let invite = cluster.invite(&["--max-uses", &machines.len().to_string()]);
            let homes: Vec<TestHome> = machines.iter().map(|name| TestHome::new(net, name)).collect();
            for home in &homes {
                cluster.join(home, &invite);
            }
            let mut daemons: Vec<Daemon> = homes.iter().map(TestHome::spawn_daemon).collect();
            daemons.iter_mut().for_each(Daemon::await_ready);
            let members = homes.into_iter().zip(daemons);
            cluster.machines = members.map(|(home, daemon)| Member { home, daemon: Some(daemon) }).collect();
        }
        cluster
    }

    /// Makes a cluster, adds lines to the entries of machines and a text to the end of its `cluster.toml`, applies that,
    /// and waits until every machine has it.
    ///
    /// # Panics
    ///
    /// When any step of it fails.
    pub fn with_config(net: &TestNet, machines: &[&str], added: &[(&str, &str)], text: &str) -> Self {
        let cluster = Self::new(net, machines);
        for (machine, lines) in added {
            cluster.manager.home.add_to_machine(&cluster.alias, machine, lines);
        }
        cluster.manager.home.edit_cluster_toml(&cluster.alias, |before| format!("{before}\n{text}\n"));
        cluster.rescan();
        cluster.await_distributed();
        cluster
    }

    /// Makes a cluster in which the laptop, which has no daemon, and the desk, which has one, reach web01 through a link
    /// and in no other way. `None` where there is no IPv6.
    ///
    /// # Panics
    ///
    /// When any step of it fails.
    pub fn linked(net: &TestNet) -> Option<(Self, UdpLink)> {
        Self::linked_with(net, "")
    }

    /// As [`Self::linked`], with more in the config: nobody can change it later, since the manager is not linked.
    ///
    /// # Panics
    ///
    /// When any step of it fails.
    pub fn linked_with(net: &TestNet, text: &str) -> Option<(Self, UdpLink)> {
        let port = UdpSocket::bind("[::1]:0").ok()?.local_addr().ok()?.port();
        let link = UdpLink::between_families(port)?;
        let lines = format!("allow_from = \"laptop, desk\"\naddresses = [\"{}\"]", link.address());
        let mut cluster = Self::with_config(net, &["web01", "laptop", "desk"], &[("web01", &lines)], text);
        let v4 = || "127.0.0.1:0".to_owned();
        for (name, bind) in [("web01", format!("[::1]:{port}")), ("laptop", v4()), ("desk", v4())] {
            let member = cluster.member(name);
            member.stop();
            let toml = format!("[network]\nbind = \"{bind}\"\nrelays = \"none\"\ndiscovery = []\n");
            member.home.write("malai.toml", &toml);
            // Where others were seen is another way.
            let _none = std::fs::remove_file(member.home.path().join("peers.json"));
        }
        cluster.member("web01").start();
        cluster.member("desk").start();
        Some((cluster, link))
    }

    /// Returns the device that holds the root.
    pub fn manager(&self) -> &TestHome {
        &self.manager.home
    }

    /// Returns a machine's device.
    ///
    /// # Panics
    ///
    /// When the cluster was made without it.
    pub fn home(&self, name: &str) -> &TestHome {
        &self
            .machines
            .iter()
            .find(|member| member.home.name() == name)
            .expect("the cluster has the machine")
            .home
    }

    /// Returns a machine.
    ///
    /// # Panics
    ///
    /// When the cluster was made without it.
    pub fn member(&mut self, name: &str) -> &mut Member {
        self.machines
            .iter_mut()
            .find(|member| member.home.name() == name)
            .expect("the cluster has the machine")
    }

    /// Returns a machine's id52 as the master config has it.
    ///
    /// # Panics
    ///
    /// When the config has no such machine.
    pub fn id52(&self, machine: &str) -> String {
        self.id52_in(&format!("[machine.{machine}]"))
    }

    /// Returns the root's id52.
    ///
    /// # Panics
    ///
    /// When the config does not say it.
    pub fn root(&self) -> String {
        self.id52_in("[cluster-manager]")
    }

    fn id52_in(&self, heading: &str) -> String {
        let text = self.manager().cluster_toml(&self.alias);
        let section = text.lines().skip_while(|line| line.trim() != heading).skip(1);
        let mut lines = section.take_while(|line| !line.trim_start().starts_with('['));
        let id = lines
            .find_map(|line| line.trim().strip_prefix("id52 = \"")?.split('"').next().map(str::to_owned));
        id.unwrap_or_else(|| panic!("no id52 under {heading} in:\n{text}"))
    }

    /// Makes an invite and returns its text.
    ///
    /// # Panics
    ///
    /// When that fails, or prints more than one word.
    pub fn invite(&self, options: &[&str]) -> String {
        let words = ["cluster", "create-invite", &self.alias].into_iter().chain(options.iter().copied());
        let output = self.manager().malai(words).ok();
        let invite = output.text();
        assert!(
            !invite.is_empty() && !invite.contains(char::is_whitespace),
            "an invite is one word: {output:?}"
        );
        invite.to_owned()
    }

    /// Lets a home join under its own name.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn join(&self, home: &TestHome, invite: &str) {
        home.malai(["machine", "init", invite, &self.alias, "--name", home.name()]).ok();
    }

    /// Applies the config as it is on disk.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn rescan(&self) {
        self.manager().malai(["rescan"]).ok();
    }

    /// Replaces the master config by what the function makes of it, and applies that.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn edit(&self, edit: impl FnOnce(String) -> String) {
        self.manager().edit_cluster_toml(&self.alias, edit);
        self.rescan();
    }

    /// Waits until the manager has distributed its applied config to every machine.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    pub fn await_distributed(&self) {
        // `state.json` alone is not enough: right after a rescan it still says what was true before.
        await_until("the distribution to every machine", DEADLINE, || {
            self.pending().is_empty() && self.deliveries() == 0
        });
    }

    /// Waits until the named machines, and these alone, are pending.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    pub fn await_pending(&self, names: &[&str]) {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        await_until(&format!("{names:?} to be pending"), DEADLINE, || self.pending() == names);
    }

    /// Returns how many machines lack what the config on disk says of them.
    fn deliveries(&self) -> u64 {
        let output = self.manager().malai(["--json", "rescan", "--check"]).ok();
        output.json()["deliveries"].as_u64().unwrap_or_else(|| panic!("no number of deliveries: {output:?}"))
    }

    /// Returns the machines that the manager's `state.json` does not list as served, sorted.
    pub fn pending(&self) -> Vec<String> {
        let state = self.manager().in_cluster(&self.alias, "state.json");
        let text = std::fs::read(&state).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let served = |name: &str| {
            let entries = state["machine_states"].as_object();
            entries.is_some_and(|entries| {
                entries
                    .values()
                    .any(|entry| entry["machine_alias"] == name && entry["sync_status"] == "success")
            })
        };
        let mut pending: Vec<String> = self
            .machines
            .iter()
            .map(|member| member.home.name().to_owned())
            .filter(|name| !served(name))
            .collect();
        pending.sort();
        pending
    }
}

//! Which configs a machine takes, over the real wire.

use malai_core::Bytes;
use malai_core::cluster::{DeliveryOutcome, LoadedCluster, Received, deliver, receive_config};
use malai_core::identity::{KeyRef, make_secret_key};
use malai_core::model::code::ErrorCode;
use malai_core::model::config::{MAX_CONFIG_BYTES, Personalised, compile, personalize, root_digest};
use malai_core::model::id::SecretKey;
use malai_core::model::wire::{PushReply, Request};
use malai_core::p2p::{Channel, Connection, P2pError};

use crate::harness::{company as cluster, *};

/// A machine with a config, and somebody who has its manager's key and says what a test wants said.
struct Receiver {
    company: Company,
    connection: Connection,
    before: String,
    serial: u64,
}

impl Receiver {
    /// `speaker` is whose key dials web01.
    async fn new(speaker: impl Fn(&Company) -> SecretKey) -> Self {
        let company = Company::new(&["web01", "laptop"]).await;
        // Whose key is used here must not be anywhere else.
        company.manager.stop().await;
        company.machine("laptop").stop().await;
        let endpoint = company.world.endpoint(speaker(&company)).await;
        let web01 = company.machine("web01");
        let connection = connected(&endpoint, web01.machine_id()).await;
        let (before, serial) = (web01.machine_text(), web01.view().await.serial.expect("a config"));
        assert!(before.contains("[signature]"));
        Self { company, connection, before, serial }
    }

    async fn from_manager() -> Self {
        Self::new(|company| company.manager.root_secret()).await
    }

    /// What the manager would sign for a machine, with these callers on web01.
    fn body(&self, machine: &str, callers: &str) -> Personalised {
        let text = allow(&deny(&self.company.manager.text(), "laptop"), "web01", callers);
        let config = compile("cluster.toml", &text).into_result().expect("compiles").0;
        personalize(&config, &machine.parse().expect("a name")).expect("is a machine")
    }

    fn sign(&self, body: &Personalised, serial: u64, key: &SecretKey) -> String {
        let next = self.company.manager.secret(&KeyRef::NextRoot(cluster())).id52();
        body.sign(serial, &root_digest(&next), key)
    }

    /// The machine's next config, as its manager would send it.
    fn good(&self) -> String {
        let root = self.company.manager.root_secret();
        self.sign(&self.body("web01", "web01"), self.serial + 1, &root)
    }

    async fn push(&self, text: &str) -> DeliveryOutcome {
        soon(deliver(&self.connection, text, MAX_CONFIG_BYTES)).await.expect("is answered")
    }

    async fn refuses(&self, text: &str, code: ErrorCode) {
        match self.push(text).await {
            DeliveryOutcome::Refused(error) => assert_eq!(error.code, code, "{}", error.message),
            other => panic!("{other:?}, expected {code}"),
        }
        self.is_untouched().await;
    }

    async fn is_untouched(&self) {
        let web01 = self.company.machine("web01");
        assert_eq!(web01.machine_text(), self.before);
        assert_eq!(web01.view().await.serial, Some(self.serial));
    }
}

#[tokio::test]
async fn what_the_manager_signed_for_this_machine_is_taken_and_only_once() {
    let receiver = Receiver::from_manager().await;
    let good = receiver.good();
    assert!(matches!(receiver.push(&good).await, DeliveryOutcome::Accepted { .. }));
    let web01 = receiver.company.machine("web01");
    assert_eq!(web01.machine_text(), good);
    assert_eq!(web01.view().await.serial, Some(receiver.serial + 1));
    // Again: nothing changes, whatever the answer.
    receiver.push(&good).await;
    assert_eq!(web01.machine_text(), good);
}

#[tokio::test]
async fn a_config_signed_by_another_key_is_refused() {
    let receiver = Receiver::from_manager().await;
    let other = make_secret_key().expect("a key");
    let forged = receiver.sign(&receiver.body("web01", "web01"), receiver.serial + 1, &other);
    receiver.refuses(&forged, ErrorCode::ConfigForged).await;
    // With the manager's name over it.
    let root = receiver.company.manager.root_secret().id52().to_string();
    let renamed = forged.replace(&other.id52().to_string(), &root);
    receiver.refuses(&renamed, ErrorCode::ConfigForged).await;
}

#[tokio::test]
async fn a_changed_config_is_refused() {
    let receiver = Receiver::from_manager().await;
    let good = receiver.good();
    let raised = good.replacen(&format!("serial = {}", receiver.serial + 1), "serial = 999", 1);
    assert_ne!(raised, good);
    receiver.refuses(&raised, ErrorCode::ConfigForged).await;
    for more in ["\n", "# more\n", "[machine.web02]\n"] {
        receiver.refuses(&format!("{good}{more}"), ErrorCode::ConfigForged).await;
        receiver.refuses(&format!("{more}{good}"), ErrorCode::ConfigForged).await;
    }
    receiver.refuses("", ErrorCode::ConfigForged).await;
    receiver.refuses(&good[..good.len() - 1], ErrorCode::ConfigForged).await;
}

#[tokio::test]
async fn a_config_for_another_machine_is_refused() {
    let receiver = Receiver::from_manager().await;
    let root = receiver.company.manager.root_secret();
    let foreign = receiver.sign(&receiver.body("laptop", "laptop"), receiver.serial + 100, &root);
    receiver.refuses(&foreign, ErrorCode::ConfigForeign).await;
}

#[tokio::test]
async fn a_config_that_is_not_newer_is_refused_and_the_one_in_force_is_shown() {
    let receiver = Receiver::from_manager().await;
    let root = receiver.company.manager.root_secret();
    let body = receiver.body("web01", "web01");
    for serial in [receiver.serial, receiver.serial - 1, 0] {
        match receiver.push(&receiver.sign(&body, serial, &root)).await {
            DeliveryOutcome::Behind { text } => assert_eq!(text, receiver.before),
            other => panic!("{other:?} to the serial {serial}"),
        }
        receiver.is_untouched().await;
    }
}

#[tokio::test]
async fn a_config_from_a_member_is_refused_also_when_the_manager_signed_it() {
    let receiver = Receiver::new(|company| company.machine("laptop").machine_secret()).await;
    receiver.refuses(&receiver.good(), ErrorCode::ConfigForged).await;
    // An old serial from a member is no reason to show it the machine's config.
    let root = receiver.company.manager.root_secret();
    let old = receiver.sign(&receiver.body("web01", "web01"), 0, &root);
    receiver.refuses(&old, ErrorCode::ConfigForged).await;
}

#[tokio::test]
async fn a_config_over_the_limit_is_refused_before_it_is_read() {
    let receiver = Receiver::from_manager().await;
    let stream = receiver.connection.open_stream().await.expect("opens");
    let (sender, mut answers) = (stream.sender, stream.receiver);
    let length = MAX_CONFIG_BYTES as u64 + 1;
    sender.send_message(&Request::PushConfig { length }).await.expect("is sent");
    match soon(answers.message::<PushReply>()).await {
        Ok(Some(PushReply::Refused { error, length: 0 })) => {
            assert_eq!(error.code, ErrorCode::ConfigTooLarge)
        }
        other => panic!("{other:?}"),
    }
    receiver.is_untouched().await;
    // In full, as a manager would send it.
    let large = format!("{}{}", "#\n".repeat(MAX_CONFIG_BYTES / 2), receiver.good());
    receiver.refuses(&large, ErrorCode::ConfigTooLarge).await;
}

/// Sends another number of bytes than announced.
async fn push_bytes(connection: &Connection, length: u64, text: &str) -> Result<ErrorCode, P2pError> {
    let stream = connection.open_stream().await?;
    let (sender, mut answers) = (stream.sender, stream.receiver);
    sender.send_message(&Request::PushConfig { length }).await?;
    sender.send(Channel::Main, Bytes::copy_from_slice(text.as_bytes())).await?;
    sender.end(Channel::Main).await?;
    match answers.message::<PushReply>().await? {
        Some(PushReply::Refused { error, length: 0 }) => Ok(error.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_or_fewer_bytes_than_announced_are_refused() {
    let receiver = Receiver::from_manager().await;
    let good = receiver.good();
    let length = good.len() as u64;
    for length in [length - 1, length + 1, 0, 1] {
        let code = soon(push_bytes(&receiver.connection, length, &good)).await;
        assert!(matches!(code, Ok(ErrorCode::WireMalformed)), "{length}: {code:?}");
        receiver.is_untouched().await;
    }
    assert!(matches!(receiver.push(&good).await, DeliveryOutcome::Accepted { .. }), "the connection is fine");
}

#[tokio::test]
async fn a_home_that_pinned_nobody_takes_config_from_nobody() {
    let company = Company::new(&["web01", "laptop"]).await;
    let web01 = company.machine("web01");
    company.manager.stop().await;
    web01.stop().await;
    // What is left of a join that was never answered.
    let info = web01.home.cluster_info_file(&cluster());
    let text = std::fs::read_to_string(&info).expect("cluster-info.toml");
    let unpinned: String =
        text.lines().filter(|line| !line.starts_with("manager")).map(|l| format!("{l}\n")).collect();
    assert_ne!(unpinned, text);
    std::fs::write(&info, unpinned).expect("is written");
    std::fs::remove_file(web01.home.machine_config(&cluster())).expect("is removed");
    let mut company = company;
    let world = &company.world;
    company.machines[0].restart(world).await;
    let endpoint = world.endpoint(company.manager.root_secret()).await;
    let connection = connected(&endpoint, company.machines[0].machine_id()).await;
    assert_eq!(soon(connection.closed()).await.text, "not admitted");
}

#[tokio::test]
async fn a_manager_restored_from_a_backup_goes_on_above_the_machines_serial() {
    let mut company = Company::new(&["web01", "laptop"]).await;
    let old = std::fs::read(company.manager.home.state_file(&cluster())).expect("state.json");
    for n in 0..3 {
        let callers = ["laptop, web01", "laptop"][n % 2];
        let before = ["laptop", "laptop, web01"][n % 2];
        company.manager.apply(|text| allow(&deny(&text, before), "web01", callers)).await;
    }
    let newest = company.machine("web01").view().await.serial.expect("a config");
    company.manager.stop().await;
    std::fs::write(company.manager.home.state_file(&cluster()), old).expect("is put back");
    let Company { world, manager, .. } = &mut company;
    manager.restart(world).await;
    let id52 = company.machine("web01").machine_id();
    assert!(company.manager.state().machine_states[&id52].serial < newest, "the backup is older");
    company.manager.apply(|text| deny(&text, "laptop, web01")).await;
    let web01 = company.machine("web01");
    let serial = web01.view().await.serial.expect("a config");
    assert!(serial > newest, "{serial} after {newest}");
    assert!(!web01.machine_text().contains("allow_from"), "{}", web01.machine_text());
    assert_eq!(company.manager.state().machine_states[&id52].serial, serial);
}

#[tokio::test]
async fn a_machine_that_was_put_back_gets_the_newest_again() {
    let mut company = Company::new(&["web01", "laptop"]).await;
    let old = company.machine("web01").machine_text();
    company.manager.apply(|text| deny(&text, "laptop")).await;
    let newest = company.machine("web01").machine_text();
    company.machine("web01").stop().await;
    std::fs::write(company.machine("web01").home.machine_config(&cluster()), &old).expect("is put back");
    let Company { world, machines, .. } = &mut company;
    machines[0].restart(world).await;
    // It asks when it starts, and says what it has.
    until("the newest rules", || async { company.machine("web01").machine_text() != old }).await;
    let text = company.machine("web01").machine_text();
    assert!(!text.contains("allow_from") && text.len() == newest.len(), "{text}");
}

#[tokio::test]
async fn what_another_process_of_the_home_received_is_not_undone() {
    let receiver = Receiver::from_manager().await;
    let web01 = receiver.company.machine("web01");
    let root = receiver.company.manager.root_secret();
    let body = receiver.body("web01", "web01");
    let [older, newer] = [1, 2].map(|more| receiver.sign(&body, receiver.serial + more, &root));
    // A command line that read the home before its daemon took the newer one.
    let dir = web01.home.cluster(&cluster()).expect("is there");
    let stale = LoadedCluster::load(&web01.home, web01.keys.as_ref(), &dir).expect("loads");
    assert!(matches!(receiver.push(&newer).await, DeliveryOutcome::Accepted { .. }));
    match receive_config(&web01.home, &stale, &older) {
        Ok(Received::Overtaken { loaded, refused }) => {
            assert_eq!(
                (loaded.serial(), refused.code()),
                (Some(receiver.serial + 2), ErrorCode::ConfigStale)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(web01.machine_text(), newer);
    // The same one is no trouble.
    assert!(matches!(receive_config(&web01.home, &stale, &newer), Ok(Received::New(_))));
    assert_eq!(web01.machine_text(), newer);
}

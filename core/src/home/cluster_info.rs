//! `cluster-info.toml`: what a member knows of its cluster apart from the config, first of all whom it
//! pinned.

use malai_model::id::Id52;
use malai_model::name::{ClusterAlias, MachineName};
use toml_edit::{DocumentMut, Item};
use zeroize::Zeroizing;

use super::{Home, HomeError, WriteGuard};

/// What a member knows of its cluster. A home that pinned no manager takes config from nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    /// The root that this device obeys; absent while a join by invite waits for an answer.
    pub manager: Option<Id52>,
    /// Earlier roots, the oldest first: each resolves to the present one.
    pub chain: Vec<Id52>,
    /// What the cluster calls itself.
    pub cluster_name: Option<String>,
    /// The domain that it was joined by.
    pub domain: Option<String>,
    /// This device's name in the cluster.
    pub machine: Option<MachineName>,
    /// Digest of the next root's public key, hex SHA-256: the only key that the present root can hand over
    /// to.
    pub next_root: Option<String>,
}

const HEADER: &str =
    "# What this machine knows of its cluster. malai writes it; `manager` is whom this machine obeys.\n";

impl Home {
    /// Reads a cluster's `cluster-info.toml`; `None` if there is none. Keys that this version does not know
    /// are ignored; a known one with a value that cannot be is an error, since it says whom to obey.
    ///
    /// # Errors
    /// [`HomeError::Malformed`], and those of [`Home::load_text`].
    pub fn load_cluster_info(&self, alias: &ClusterAlias) -> Result<Option<ClusterInfo>, HomeError> {
        let path = self.cluster_info_file(alias);
        let Some(text) = self.load_text(&path)? else { return Ok(None) };
        read(&text).map(Some).map_err(|problem| HomeError::Malformed { path, problem })
    }

    /// Writes a cluster's `cluster-info.toml`. Keys that a newer version wrote there stay.
    ///
    /// # Errors
    /// [`HomeError::Malformed`] if the file that is there is no TOML, and those of [`Home::write`].
    pub fn save_cluster_info(
        &self,
        guard: &WriteGuard,
        alias: &ClusterAlias,
        info: &ClusterInfo,
    ) -> Result<(), HomeError> {
        let path = self.cluster_info_file(alias);
        let old = self.load_text(&path)?;
        let text = edit(old.as_deref().unwrap_or_default(), alias, info)
            .map_err(|problem| HomeError::Malformed { path: path.clone(), problem })?;
        self.write(guard, &path, text.as_bytes())
    }

    /// Reads the invite that a join still waits for; `None` if none does.
    ///
    /// # Errors
    /// Those of [`Home::load_secret`].
    pub fn load_pending_invite(&self, alias: &ClusterAlias) -> Result<Option<Zeroizing<String>>, HomeError> {
        let text = self.load_secret(&self.pending_invite_file(alias))?;
        Ok(text.map(|text| Zeroizing::new(text.trim().to_owned())))
    }

    /// Keeps an invite until the join is done.
    ///
    /// # Errors
    /// Those of [`Home::write`].
    pub fn save_pending_invite(
        &self,
        guard: &WriteGuard,
        alias: &ClusterAlias,
        invite: &str,
    ) -> Result<(), HomeError> {
        self.write(guard, &self.pending_invite_file(alias), invite.as_bytes())
    }

    /// Wipes the invite of a join that is done or given up.
    ///
    /// # Errors
    /// Those of [`Home::wipe`].
    pub fn delete_pending_invite(&self, guard: &WriteGuard, alias: &ClusterAlias) -> Result<(), HomeError> {
        self.wipe(guard, &self.pending_invite_file(alias))
    }
}

fn read(text: &str) -> Result<ClusterInfo, String> {
    let document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.message().to_owned())?;
    let word = |key: &str| match document.get(key) {
        None => Ok(None),
        Some(item) => item.as_str().map(Some).ok_or_else(|| format!("{key} is not a text")),
    };
    let id = |key: &str, text: &str| text.parse::<Id52>().map_err(|e| format!("{key} = {text:?}: {e}"));
    let chain = match document.get("chain") {
        None => Vec::new(),
        Some(item) => {
            let ids = item.as_array().ok_or("chain is not a list")?;
            ids.iter()
                .map(|value| id("chain", value.as_str().ok_or("chain holds something that is no text")?))
                .collect::<Result<_, String>>()?
        }
    };
    Ok(ClusterInfo {
        manager: word("manager")?.map(|text| id("manager", text)).transpose()?,
        chain,
        cluster_name: word("cluster_name")?.map(str::to_owned),
        domain: word("domain")?.map(str::to_owned),
        machine: word("machine")?
            .map(|text| text.parse().map_err(|e| format!("machine = {text:?}: {e}")))
            .transpose()?,
        next_root: word("next_root")?.map(str::to_owned),
    })
}

fn edit(old: &str, alias: &ClusterAlias, info: &ClusterInfo) -> Result<String, String> {
    let mut document: DocumentMut = old.parse().map_err(|e: toml_edit::TomlError| e.message().to_owned())?;
    let mut set = |key: &str, value: Option<String>| match value {
        Some(value) => document[key] = toml_edit::value(value),
        None => {
            document.remove(key);
        }
    };
    set("alias", Some(alias.to_string()));
    set("manager", info.manager.map(|id| id.to_string()));
    set("cluster_name", info.cluster_name.clone());
    set("domain", info.domain.clone());
    set("machine", info.machine.as_ref().map(ToString::to_string));
    set("next_root", info.next_root.clone());
    let chain: toml_edit::Array = info.chain.iter().map(ToString::to_string).collect();
    document["chain"] = Item::Value(chain.into());
    // The header belongs to the first key, which is always there, and stays with it.
    let header = if old.is_empty() { HEADER } else { "" };
    Ok(format!("{header}{document}"))
}

#[cfg(test)]
mod tests {
    use malai_model::id::SecretKey;

    use super::*;
    use crate::home::Create;

    fn id(n: u8) -> Id52 {
        SecretKey::from_bytes(&[n; 32]).id52()
    }

    fn info() -> ClusterInfo {
        ClusterInfo {
            manager: Some(id(1)),
            chain: vec![id(2), id(3)],
            cluster_name: Some("acme \"quoted\"".to_owned()),
            domain: None,
            machine: Some("web01".parse().expect("a name")),
            next_root: Some("ab".repeat(32)),
        }
    }

    #[tokio::test]
    async fn what_is_saved_reads_back_and_a_newer_version_s_keys_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let alias: ClusterAlias = "company".parse().expect("an alias");
        assert_eq!(home.load_cluster_info(&alias).expect("no error"), None);
        let guard = home.lock_for_writing().await.expect("the lock");
        home.save_cluster_info(&guard, &alias, &info()).expect("is saved");
        assert_eq!(home.load_cluster_info(&alias).expect("reads"), Some(info()));

        let path = home.cluster_info_file(&alias);
        let newer = format!("{}later = 7\n", home.load_text(&path).expect("reads").expect("is there"));
        home.write(&guard, &path, newer.as_bytes()).expect("is written");
        let left = ClusterInfo { manager: None, ..info() };
        home.save_cluster_info(&guard, &alias, &left).expect("is saved");
        assert_eq!(home.load_cluster_info(&alias).expect("reads"), Some(left));
        let text = home.load_text(&path).expect("reads").expect("is there");
        assert!(text.contains("later = 7") && text.starts_with("# What"), "{text}");
    }

    #[test]
    fn a_manager_that_cannot_be_read_is_an_error_and_not_nobody() {
        assert!(read("manager = \"web01\"").expect_err("no id52").contains("manager"));
        assert!(read("manager = 7").is_err());
        assert!(read("chain = [1]").is_err());
        assert_eq!(read(""), Ok(ClusterInfo::default()));
    }

    #[tokio::test]
    async fn a_pending_invite_is_kept_apart_and_wiped() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        let alias: ClusterAlias = "company".parse().expect("an alias");
        let guard = home.lock_for_writing().await.expect("the lock");
        home.save_pending_invite(&guard, &alias, "secret").expect("is saved");
        assert_eq!(home.load_pending_invite(&alias).expect("reads").expect("is there").as_str(), "secret");
        home.delete_pending_invite(&guard, &alias).expect("is wiped");
        assert!(home.load_pending_invite(&alias).expect("reads").is_none());
    }
}

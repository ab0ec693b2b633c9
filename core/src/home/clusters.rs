//! The clusters of a home, and this device's role in each.

use std::fs;
use std::io;
use std::path::PathBuf;

use malai_model::name::ClusterAlias;

use super::{Home, HomeError};

/// What this device is in a cluster, told by the files of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It holds `cluster.toml`.
    Manager,
    /// It holds the `machine.toml` that its manager sent.
    Machine,
    /// It has an identity or an invite, and no config yet.
    Waiting,
}

/// One cluster of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDir {
    /// What this device calls the cluster.
    pub alias: ClusterAlias,
    /// Its directory.
    pub path: PathBuf,
    /// What this device is in it.
    pub role: Role,
}

/// All that stands under `clusters/`.
#[derive(Debug, Default)]
pub struct ClusterSurvey {
    /// The clusters, ordered by alias.
    pub clusters: Vec<ClusterDir>,
    /// What is wrong with the other directories.
    pub problems: Vec<HomeError>,
}

impl Home {
    /// Lists the clusters of this home, ordered by alias.
    ///
    /// # Errors
    /// The first problem of [`Home::survey_clusters`].
    pub fn clusters(&self) -> Result<Vec<ClusterDir>, HomeError> {
        let survey = self.survey_clusters()?;
        match survey.problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(survey.clusters),
        }
    }

    /// Lists the clusters of this home and, apart from them, everything that is wrong with directories beside
    /// them: for whoever reports all problems at once. Plain files and names that begin with a dot are passed
    /// over.
    ///
    /// # Errors
    /// [`HomeError::Io`] if `clusters/` cannot be listed.
    pub fn survey_clusters(&self) -> Result<ClusterSurvey, HomeError> {
        let dir = self.clusters_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ClusterSurvey::default()),
            Err(error) => return Err(HomeError::io("list", dir, error)),
        };
        let mut survey = ClusterSurvey::default();
        for entry in entries {
            let path = entry.map_err(|e| HomeError::io("list", &dir, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || !path.is_dir() {
                continue;
            }
            match name.parse::<ClusterAlias>() {
                Ok(alias) => match self.cluster(&alias) {
                    Ok(cluster) => survey.clusters.push(cluster),
                    Err(problem) => survey.problems.push(problem),
                },
                Err(source) => survey.problems.push(HomeError::BadAlias { path, name, source }),
            }
        }
        survey.clusters.sort_by(|a, b| a.alias.cmp(&b.alias));
        survey.problems.sort_by_key(ToString::to_string);
        Ok(survey)
    }

    /// Finds one cluster of this home.
    ///
    /// # Errors
    /// [`HomeError::UnknownCluster`], [`HomeError::TwoRoles`], [`HomeError::EmptyCluster`],
    /// [`HomeError::Io`].
    pub fn cluster(&self, alias: &ClusterAlias) -> Result<ClusterDir, HomeError> {
        let path = self.cluster_dir(alias);
        if !path.is_dir() {
            return Err(HomeError::UnknownCluster { alias: alias.to_string(), path: self.root().into() });
        }
        let has = |file: PathBuf| file.try_exists().map_err(|e| HomeError::io("look at", file, e));
        let role = match (has(self.cluster_config(alias))?, has(self.machine_config(alias))?) {
            (true, true) => return Err(HomeError::TwoRoles { path }),
            (true, false) => Role::Manager,
            (false, true) => Role::Machine,
            (false, false) => {
                // The key alone is not asked for: it may be in a keyring.
                let waits = has(self.cluster_info_file(alias))?
                    || has(self.machine_key_file(alias))?
                    || has(self.root_key_file(alias))?
                    || has(self.next_root_key_file(alias))?
                    || has(self.pending_invite_file(alias))?;
                if !waits {
                    return Err(HomeError::EmptyCluster { path });
                }
                Role::Waiting
            }
        };
        Ok(ClusterDir { alias: alias.clone(), path, role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Create;

    fn home(files: &[&str]) -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(dir.path().join("h"), Create::Yes).expect("opens");
        for file in files {
            let path = home.clusters_dir().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("is made");
            fs::write(path, b"").expect("is written");
        }
        (dir, home)
    }

    #[test]
    fn the_role_is_told_by_the_files() {
        let (_dir, home) = home(&[
            "c/machine.private-key",
            "a/cluster.toml",
            "a/cluster.private-key",
            "b/machine.toml",
            "d/cluster-info.toml",
            "README",
            ".git/config",
        ]);
        let roles: Vec<(String, Role)> =
            home.clusters().expect("no problem").into_iter().map(|c| (c.alias.to_string(), c.role)).collect();
        let expected =
            [("a", Role::Manager), ("b", Role::Machine), ("c", Role::Waiting), ("d", Role::Waiting)];
        assert_eq!(roles, expected.map(|(alias, role)| (alias.to_owned(), role)));
    }

    #[test]
    fn two_roles_are_an_error_that_names_both_files() {
        let (_dir, home) = home(&["a/cluster.toml", "a/machine.toml", "b/machine.toml"]);
        let error = home.clusters().expect_err("is refused");
        assert_eq!(error.code().as_str(), "config.two_roles");
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("/a/cluster.toml") && hint.contains("/a/machine.toml"), "{hint}");
        let survey = home.survey_clusters().expect("lists");
        assert_eq!((survey.clusters.len(), survey.problems.len()), (1, 1));
    }

    #[test]
    fn every_directory_that_is_no_cluster_is_named() {
        let (_dir, home) = home(&["Bad_Name/cluster.toml"]);
        fs::create_dir(home.clusters_dir().join("empty")).expect("is made");
        let problems = home.survey_clusters().expect("lists").problems;
        let codes: Vec<&str> = problems.iter().map(|p| p.code().as_str()).collect();
        assert_eq!(codes, ["name.invalid", "home.storage"]);
        assert!(problems[0].to_string().contains("Bad_Name") && problems[1].to_string().contains("empty"));
    }

    #[test]
    fn an_unknown_cluster_is_not_found() {
        let (_dir, home) = home(&[]);
        let error = home.cluster(&"nowhere".parse().expect("an alias")).expect_err("is refused");
        assert_eq!(error.code().as_str(), "home.unknown_cluster");
    }
}

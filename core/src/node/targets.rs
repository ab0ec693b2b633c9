//! Which machines a list of words means.

use std::collections::BTreeMap;

use malai_model::address::KnownCluster;
use malai_model::name::ClusterAlias;
use malai_model::targets::{Reachable, SelectedMachine, TargetPattern, TargetProblem, select_all};

use super::{Node, NodeError};
use crate::cluster::{ClusterError, LoadedCluster, find_cluster};

/// Where a cluster's config is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What this node knows.
    Known,
    /// The files: another process, the daemon, may have received a newer one.
    Fresh,
}

impl Node {
    /// Finds what this device may reach and the words mean.
    pub(crate) async fn select(
        &self,
        words: &[String],
        reading: Reading,
    ) -> Result<Vec<SelectedMachine>, NodeError> {
        let known = self.known_clusters()?;
        let words = words.to_vec();
        Ok(self.blocking(move |node| node.select_blocking(&words, &known, reading)).await?)
    }

    fn select_blocking(
        &self,
        words: &[String],
        known: &[KnownCluster],
        reading: Reading,
    ) -> Result<Vec<SelectedMachine>, ClusterError> {
        let device = self.device();
        let parse = |word: &String| TargetPattern::parse(word, &device.aliases, known);
        let patterns = words.iter().map(parse).collect::<Result<Vec<_>, TargetProblem>>()?;
        let mut reach: BTreeMap<&ClusterAlias, Reachable> = BTreeMap::new();
        for pattern in &patterns {
            if !reach.contains_key(pattern.cluster()) {
                reach.insert(pattern.cluster(), self.reach_in(pattern.cluster(), reading)?);
            }
        }
        Ok(select_all(&patterns, |cluster| reach.get(cluster))?)
    }

    fn reach_in(&self, cluster: &ClusterAlias, reading: Reading) -> Result<Reachable, ClusterError> {
        let found = match reading {
            Reading::Known => None,
            Reading::Fresh => find_cluster(self.home(), cluster)?,
        };
        match found {
            Some(dir) => LoadedCluster::load(self.home(), self.keys().as_ref(), &dir)?.reachable(),
            None => self.member(cluster)?.loaded().reachable(),
        }
    }
}

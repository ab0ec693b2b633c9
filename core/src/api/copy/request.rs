//! What is to be copied, and what of it in one go.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::CopyStreams;
use super::place::{CopyPlace, usage};
use crate::exec::copy::{Compare, CopyError, Extraneous, Links, PathLinks, Roots, SinkRequest};

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// From where.
    pub sources: Vec<CopyPlace>,
    /// To where. As with `cp`: an existing directory, or a path with a slash at the end, is copied into.
    pub destination: CopyPlace,
    /// What becomes of what the destination has and the source has not.
    pub extraneous: Extraneous,
    /// When a file that is there is taken to be the same.
    pub compare: Compare,
    /// What becomes of symbolic links.
    pub links: Links,
    /// Over how many streams.
    pub streams: CopyStreams,
    /// `TERM`, `LANG` and `LC_*` of the caller.
    pub env: BTreeMap<String, String>,
}

impl CopyRequest {
    /// Says what is wrong with it, before any machine is asked.
    pub(super) fn check(&self) -> Result<(), CopyError> {
        let here = |place: &CopyPlace| matches!(place, CopyPlace::Here(_));
        if self.sources.is_empty() {
            return Err(usage("nothing is named that could be copied", None));
        }
        if here(&self.destination) && self.sources.iter().any(here) {
            let hint = "name a machine as `web01.company:path`; within this device, use cp";
            return Err(usage("both places are on this device", Some(hint)));
        }
        if self.extraneous == Extraneous::Delete && self.sources.len() > 1 {
            return Err(usage(
                "deleting needs a single source, to which the destination is made equal",
                None,
            ));
        }
        Ok(())
    }

    /// What is done at the destination with what was asked for. With several sources it is a directory.
    pub(super) fn sink(&self, asked: Roots) -> SinkRequest {
        let mut destination = match &self.destination {
            CopyPlace::Here(path) => path.clone().into_os_string(),
            CopyPlace::There { path, .. } => path.into(),
        };
        if self.sources.len() > 1 && !destination.as_bytes().ends_with(b"/") {
            destination.push("/");
        }
        SinkRequest {
            destination: destination.into(),
            extraneous: self.extraneous,
            compare: self.compare,
            roots: Some(asked),
            path_links: PathLinks::Follow,
        }
    }
}

/// Sources of one place, copied in one go.
pub(super) enum Group {
    Here(Vec<PathBuf>),
    There { address: String, paths: Vec<PathBuf> },
}

pub(super) fn groups(sources: &[CopyPlace]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for source in sources {
        match (groups.last_mut(), source) {
            (Some(Group::Here(paths)), CopyPlace::Here(path)) => paths.push(path.clone()),
            (Some(Group::There { address, paths }), CopyPlace::There { address: same, path })
                if address == same =>
            {
                paths.push(path.into());
            }
            (_, CopyPlace::Here(path)) => groups.push(Group::Here(vec![path.clone()])),
            (_, CopyPlace::There { address, path }) => {
                groups.push(Group::There { address: address.clone(), paths: vec![path.into()] });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> CopyPlace {
        CopyPlace::parse(word.as_ref()).expect("is a place")
    }

    #[test]
    fn sources_of_one_machine_are_copied_in_one_go_and_need_a_directory() {
        let request = CopyRequest {
            sources: ["a", "b", "web01.company:c", "web01.company:d", "e"].map(parse).to_vec(),
            destination: parse("db01.company:/srv"),
            extraneous: Extraneous::Keep,
            compare: Compare::Times,
            links: Links::Keep,
            streams: CopyStreams::ByRoundTrip,
            env: BTreeMap::new(),
        };
        assert_eq!(groups(&request.sources).len(), 3);
        assert_eq!(request.sink(Roots::default()).destination.to_str(), Some("/srv/"));
        let delete = CopyRequest { extraneous: Extraneous::Delete, ..request.clone() };
        assert!(delete.check().is_err());
        let here = CopyRequest { destination: parse("x"), ..request };
        assert!(here.check().is_err());
    }
}

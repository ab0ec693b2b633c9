//! Names of machines, groups, services, commands and clusters.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Id52;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Empty, or longer than 63 characters.
    #[error("a name has 1 to 63 characters, this has {0}")]
    Length(usize),
    /// A character outside `[a-z0-9-]`.
    #[error("a name has only the characters a-z, 0-9 and -, not {0:?}")]
    Character(char),
    /// It looks like an id52, so an address would be ambiguous.
    #[error("a name may not look like an id52")]
    LooksLikeId,
    /// The word means something else at this place.
    #[error("the name {0:?} is reserved")]
    Reserved(&'static str),
}

fn check(text: &str, reserved: &[&'static str]) -> Result<(), NameProblem> {
    if let Some(other) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameProblem::Character(other));
    }
    if text.is_empty() || text.len() > 63 {
        return Err(NameProblem::Length(text.len()));
    }
    if Id52::has_shape(text) {
        return Err(NameProblem::LooksLikeId);
    }
    match reserved.iter().find(|word| **word == text) {
        Some(word) => Err(NameProblem::Reserved(word)),
        None => Ok(()),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, reserved $reserved:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// `[a-z0-9-]{1,63}`, not shaped like an id52. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameProblem;

            fn from_str(text: &str) -> Result<Self, NameProblem> {
                check(text, &$reserved)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// The name of a machine in its cluster.
    MachineName, reserved ["service", "cluster-manager"];
    /// The name of a group of principals.
    GroupName, reserved ["service", "cluster-manager"];
    /// The name of a TCP or HTTP service.
    ServiceName, reserved [];
    /// The word by which a caller asks for a command; the word that its rule is looked up by.
    CommandName, reserved ["shell", "proxy", "config"];
    /// What this device calls a cluster: a directory name under `clusters/`.
    ClusterAlias, reserved [];
    /// The name of an alias or of a forward on this device.
    AliasName, reserved [];
    /// The name of an ACL test.
    TestName, reserved [];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_words() {
        assert!("web-01".parse::<MachineName>().is_ok());
        assert_eq!("Web".parse::<MachineName>(), Err(NameProblem::Character('W')));
        assert_eq!("a.b".parse::<ServiceName>(), Err(NameProblem::Character('.')));
        assert_eq!("".parse::<GroupName>(), Err(NameProblem::Length(0)));
        assert_eq!("a".repeat(64).parse::<GroupName>(), Err(NameProblem::Length(64)));
        assert_eq!("a".repeat(52).parse::<GroupName>(), Err(NameProblem::LooksLikeId));
    }

    #[test]
    fn reserved_words_depend_on_the_kind() {
        assert_eq!("service".parse::<MachineName>(), Err(NameProblem::Reserved("service")));
        assert_eq!("shell".parse::<CommandName>(), Err(NameProblem::Reserved("shell")));
        assert!("shell".parse::<MachineName>().is_ok());
    }
}

//! Identities as small numbers, and sets of them.

use std::collections::HashMap;

use crate::id::Id52;

/// Every identity that a config names, numbered in the order of the ids: a sorted set of numbers is a sorted set of ids.
#[derive(Debug, Clone)]
pub(crate) struct Principals {
    ids: Vec<Id52>,
    index: HashMap<Id52, u32>,
}

impl Principals {
    pub(crate) fn new(ids: impl IntoIterator<Item = Id52>) -> Self {
        let mut ids: Vec<Id52> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let index = (0_u32..).zip(&ids).map(|(number, id)| (*id, number)).collect();
        Self { ids, index }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn number(&self, id: &Id52) -> Option<u32> {
        self.index.get(id).copied()
    }

    pub(crate) fn id(&self, number: u32) -> Id52 {
        self.ids[number as usize]
    }
}

/// A set under construction: one bit for each principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn empty(principals: usize) -> Self {
        Self(vec![0; principals.div_ceil(64)])
    }

    pub(crate) fn insert(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.0).flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// A finished set, in whichever form is smaller: ten thousand lists of ten people each must not cost ten thousand
/// bitsets of the whole cluster.
#[derive(Debug, Clone)]
pub(crate) enum Members {
    Few(Box<[u32]>),
    Many(Bits),
}

impl Members {
    pub(crate) fn of(bits: Bits) -> Self {
        if bits.count() < bits.0.len() * 2 { Self::Few(bits.iter().collect()) } else { Self::Many(bits) }
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        match self {
            Self::Few(numbers) => numbers.binary_search(&number).is_ok(),
            Self::Many(bits) => bits.contains(number),
        }
    }

    /// The numbers in ascending order, which is the order of the ids.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Few(numbers) => Box::new(numbers.iter().copied()),
            Self::Many(bits) => Box::new(bits.iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_the_same_numbers() {
        for wanted in [vec![], vec![0], vec![63, 64], (0..300).collect::<Vec<u32>>()] {
            let mut bits = Bits::empty(1000);
            wanted.iter().for_each(|number| bits.insert(*number));
            let members = Members::of(bits.clone());
            assert_eq!(members.iter().collect::<Vec<_>>(), wanted);
            assert_eq!(bits.iter().collect::<Vec<_>>(), wanted);
            for number in 0..1000 {
                assert_eq!(members.contains(number), wanted.contains(&number), "{number}");
            }
            assert!(!members.contains(5000));
        }
    }
}

//! The first moments of a session: whether anybody knows of it.
//!
//! The client that opens a session may go before it learns that there is one. Then nobody else knows, and it has to end, as
//! a shell does whose ssh was given up. That its machine sent word says nothing: the client itself has to say that it has
//! it, or to do what it does only then.

use malai_model::wire::ResumeToken;
use tokio::time::Instant;

use super::job::Opener;
use super::session::ClientId;
use crate::timeouts;

/// A session of which it is not known whether anybody knows.
#[derive(Debug)]
pub(super) struct Opening {
    opener: Opener,
    /// The opener's connection, when it is attached or was.
    connection: Option<ClientId>,
    until: Instant,
}

impl Opening {
    pub(super) fn new(opener: Opener) -> Self {
        // The daemon attaches it as soon as it hears that the program runs; if it dies before, nobody does.
        Self { opener, connection: None, until: Instant::now() + timeouts::START }
    }

    /// A client attached; `None` when it knows of the session: it was there already, or heard of it elsewhere.
    pub(super) fn attached(mut self, id: ClientId, client: &ResumeToken) -> Option<Self> {
        if self.connection.is_some() || self.opener.client != *client {
            return None;
        }
        self.connection = Some(id);
        Some(self)
    }

    /// Whether a connection is the opener's.
    pub(super) fn is_by(&self, id: ClientId) -> bool {
        self.connection == Some(id)
    }

    /// A connection is gone. The opener's was perhaps lost, and it comes back.
    pub(super) fn gone(&mut self, id: ClientId) {
        if self.is_by(id) {
            self.until = Instant::now() + self.opener.kept;
        }
    }

    /// Until when somebody has to come.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(number: u8) -> ResumeToken {
        ResumeToken::from_random([number; 16])
    }

    fn opened_by_1() -> Opening {
        Opening::new(Opener { client: token(1), kept: Duration::ZERO })
    }

    #[test]
    fn a_client_that_comes_back_or_another_that_comes_knows_of_it() {
        for second in [1, 2] {
            let mut opening =
                opened_by_1().attached(1, &token(1)).expect("its first connection proves nothing");
            opening.gone(1);
            assert!(opening.attached(2, &token(second)).is_none(), "client {second}");
        }
    }

    #[test]
    fn who_comes_without_having_opened_it_knows_of_it() {
        assert!(opened_by_1().attached(1, &token(2)).is_none());
    }

    #[test]
    fn only_the_opener_s_going_counts() {
        let mut opening = opened_by_1().attached(1, &token(1)).expect("its first connection proves nothing");
        let before = opening.until();
        opening.gone(9);
        assert_eq!(opening.until(), before);
        opening.gone(1);
        assert!(opening.until() < before && opening.until() <= Instant::now());
    }
}

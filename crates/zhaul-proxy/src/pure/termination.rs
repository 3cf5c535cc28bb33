//! The ways in which a session ends, by the words of the log and the metrics.

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    ClosedByClient,
    ClosedByServer,
    ResetByClient,
    ResetByServer,
    IdleTimeout,
    FinTimeout,
    SessionTimeout,
    ClientReadError,
    ServerReadError,
    ClientWriteError,
    ServerWriteError,
    /// The client went away before it was relayed.
    ClientGone,
    HelloTimeout,
    /// The client may not come.
    Refused,
    BadProxyHeader,
    BadClientHello,
    NoRoute,
    NoServer,
    QueueFull,
    QueueTimeout,
    Exhausted,
    Killed,
    Defect,
    /// None of these.
    Other,
}

impl Termination {
    /// All of them, in the order in which metrics list them.
    pub(crate) const ALL: [Self; 24] = [
        Self::ClosedByClient,
        Self::ClosedByServer,
        Self::ResetByClient,
        Self::ResetByServer,
        Self::IdleTimeout,
        Self::FinTimeout,
        Self::SessionTimeout,
        Self::ClientReadError,
        Self::ServerReadError,
        Self::ClientWriteError,
        Self::ServerWriteError,
        Self::ClientGone,
        Self::HelloTimeout,
        Self::Refused,
        Self::BadProxyHeader,
        Self::BadClientHello,
        Self::NoRoute,
        Self::NoServer,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Exhausted,
        Self::Killed,
        Self::Defect,
        Self::Other,
    ];

    /// The word in the log and in the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ClosedByClient => "closed-by-client",
            Self::ClosedByServer => "closed-by-server",
            Self::ResetByClient => "reset-by-client",
            Self::ResetByServer => "reset-by-server",
            Self::IdleTimeout => "idle-timeout",
            Self::FinTimeout => "fin-timeout",
            Self::SessionTimeout => "session-timeout",
            Self::ClientReadError => "client-read-error",
            Self::ServerReadError => "server-read-error",
            Self::ClientWriteError => "client-write-error",
            Self::ServerWriteError => "server-write-error",
            Self::ClientGone => "client-gone",
            Self::HelloTimeout => "hello-timeout",
            Self::Refused => "refused",
            Self::BadProxyHeader => "bad-proxy-header",
            Self::BadClientHello => "bad-client-hello",
            Self::NoRoute => "no-route",
            Self::NoServer => "no-server",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Exhausted => "exhausted",
            Self::Killed => "killed",
            Self::Defect => "defect",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place_and_a_word_of_its_own() {
        let mut words = std::collections::BTreeSet::new();
        for (index, termination) in Termination::ALL.into_iter().enumerate() {
            assert_eq!(termination as usize, index);
            assert!(words.insert(termination.name()), "{termination:?}");
        }
    }
}

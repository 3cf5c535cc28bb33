//! The ways that are measured: the routes of transfers, and what memory is sent by.

use std::fmt;

use zhaul::Route;

/// A way of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A route from a descriptor to another.
    Route(Route),
    /// `send(2)` from memory, which copies.
    Send,
    /// `send(2)` from memory with MSG_ZEROCOPY.
    SendZeroCopy,
}

impl Way {
    /// All, from what costs most to what costs least, as the literature's tables go.
    pub const ALL: [Self; 7] = [
        Self::Route(Route::ReadWrite),
        Self::Route(Route::MmapWrite),
        Self::Route(Route::Splice),
        Self::Route(Route::Sendfile),
        Self::Route(Route::CopyFileRange),
        Self::Send,
        Self::SendZeroCopy,
    ];

    /// The name that the command line uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route(route) => route.name(),
            Self::Send => "send",
            Self::SendZeroCopy => "send-zerocopy",
        }
    }

    /// True if it sends memory of the process.
    pub(super) const fn is_from_memory(self) -> bool {
        matches!(self, Self::Send | Self::SendZeroCopy)
    }

    /// A small dense number.
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Route(route) => route.index() + 2,
            Self::Send => 0,
            Self::SendZeroCopy => 1,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_a_way_and_every_way_has_a_number_of_its_own() {
        let all = Way::ALL.map(Way::index);
        for route in Route::BY_COST {
            assert!(Way::ALL.contains(&Way::Route(route)));
        }
        for number in 0..Way::ALL.len() {
            assert!(all.contains(&number));
        }
    }
}

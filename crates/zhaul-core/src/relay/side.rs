//! The two sides of a relay and the two ways between them.

use std::fmt;

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first: in a proxy the client.
    A,
    /// The second: in a proxy the server.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one across.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The way that starts here.
    pub const fn outward(self) -> Way {
        match self {
            Self::A => Way::AToB,
            Self::B => Way::BToA,
        }
    }

    /// The way that ends here.
    pub const fn inward(self) -> Way {
        self.other().outward()
    }

    /// A small dense number, for tables.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// A direction of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// What A sends reaches B.
    AToB,
    /// What B sends reaches A.
    BToA,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::AToB, Self::BToA];

    /// The side that bytes come from.
    pub const fn source(self) -> Side {
        match self {
            Self::AToB => Side::A,
            Self::BToA => Side::B,
        }
    }

    /// The side that they go to.
    pub const fn sink(self) -> Side {
        self.source().other()
    }

    /// A small dense number, for tables.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AToB => "A to B",
            Self::BToA => "B to A",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_and_ways_agree() {
        for side in Side::BOTH {
            assert_eq!(side.outward().source(), side);
            assert_eq!(side.inward().sink(), side);
            assert_eq!(side.other().other(), side);
        }
        for way in Way::BOTH {
            assert_eq!(way.source().outward(), way);
            assert_eq!(way.sink().inward(), way);
        }
    }
}

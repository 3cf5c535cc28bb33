//! The ways bytes can take, named after the system calls that carry them.

use std::fmt;

/// One way to move bytes from a source to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Route {
    /// `read(2)` into a buffer, `write(2)` out of it. Two CPU copies; always possible, and where
    /// every fallback ends. Any kernel.
    /// [read(2)](https://man7.org/linux/man-pages/man2/read.2.html),
    /// [write(2)](https://man7.org/linux/man-pages/man2/write.2.html)
    ReadWrite,
    /// `mmap(2)` of a window of the file, `write(2)` or `send(2)` out of it. One CPU copy.
    /// Any kernel. [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html)
    MmapWrite,
    /// `sendfile(2)`: page references go straight into the sink's queue. To a socket any kernel, to
    /// anything else Linux 2.6.33.
    /// [sendfile(2)](https://man7.org/linux/man-pages/man2/sendfile.2.html)
    Sendfile,
    /// `splice(2)`, directly when one end is a pipe, otherwise through a pipe from the pool. Linux
    /// 2.6.17. [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html)
    Splice,
    /// `copy_file_range(2)`: the file system copies, or shares extents. Linux 4.5; between file
    /// systems 5.19, before which it is refused and another route is taken.
    /// [copy_file_range(2)](https://man7.org/linux/man-pages/man2/copy_file_range.2.html)
    CopyFileRange,
}

impl Route {
    /// Every route, cheapest first; the planner takes the first that nothing speaks against.
    pub const BY_COST: [Self; 5] = [
        Self::CopyFileRange,
        Self::Sendfile,
        Self::Splice,
        Self::MmapWrite,
        Self::ReadWrite,
    ];

    /// A small dense number, for tables and atomics.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The route with that number.
    pub const fn from_index(index: usize) -> Option<Self> {
        match index {
            0 => Some(Self::ReadWrite),
            1 => Some(Self::MmapWrite),
            2 => Some(Self::Sendfile),
            3 => Some(Self::Splice),
            4 => Some(Self::CopyFileRange),
            _ => None,
        }
    }

    /// The name the command line uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "read+write",
            Self::MmapWrite => "mmap+write",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::CopyFileRange => "copy_file_range",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_one_index_and_comes_back_from_it() {
        for route in Route::BY_COST {
            assert_eq!(Route::from_index(route.index()), Some(route));
        }
        assert_eq!(Route::from_index(Route::BY_COST.len()), None);
    }
}

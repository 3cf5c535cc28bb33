//! The limit on open files, and how many connections fit into it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept free for everything that is no connection and is not provided for otherwise.
const SPARE_FILES: usize = 64;

/// Raises the soft limit on open files to the hard one and says what it is now.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(errno) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("cannot raise the limit on open files: {errno}");
        }
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(now).unwrap_or(1 << 20)
}

/// What open files a server may have, and what they are for.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorBudget {
    /// All that it may have, as [`raise_open_files`] says.
    pub open_files: usize,
    /// Those that are provided for: caches, pipes, listening sockets.
    pub reserved: usize,
    /// What each connection takes.
    pub per_connection: usize,
}

impl DescriptorBudget {
    /// Connections for which there are descriptors; at least one.
    pub fn most_connections(&self) -> usize {
        let left = self.open_files.saturating_sub(self.reserved + SPARE_FILES);
        (left / self.per_connection).max(1)
    }

    /// Connections that may be open at once: as many as were asked for, or (0) as there can be. To
    /// ask for more than that is told, and they are not had.
    pub fn connections(&self, asked: usize) -> usize {
        let (most, open_files) = (self.most_connections(), self.open_files);
        if asked > most {
            tracing::warn!(
                "{asked} connections were asked for, but {open_files} open files allow {most} \
                 (raise the limit on open files)"
            );
        }
        match asked {
            0 => most,
            asked => asked.min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_is_left() {
        let budget = DescriptorBudget {
            open_files: 1024,
            reserved: 160,
            per_connection: 2,
        };
        assert_eq!([0, 10, 500].map(|n| budget.connections(n)), [400, 10, 400]);
        let none = DescriptorBudget {
            reserved: 4096,
            ..budget
        };
        assert_eq!(none.connections(0), 1);
    }
}

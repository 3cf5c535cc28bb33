//! Which server takes a connection.
//!
//! Pure: what is known about the servers goes in, an index comes out. The only state is that of
//! round robin, behind a lock that is held for a few additions.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::FixedState;

use crate::config::Balance;

/// What is known about a server at the moment of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How much it takes next to the others: its weight, or less while it starts slowly; 0 is none.
    pub share: u32,
    /// Connections it has now.
    pub connections: usize,
    /// Connections it may have; 0 means no limit.
    pub max_connections: usize,
    /// It is up, and not being drained.
    pub up: bool,
    /// It is used only while no other is up.
    pub backup: bool,
    /// This connection was tried with it, in vain.
    pub tried: bool,
    /// What makes it the same server after others came or went ([`identity`]).
    pub identity: u64,
}

impl Candidate {
    fn is_usable(&self) -> bool {
        self.up && self.share > 0
    }

    fn is_full(&self) -> bool {
        self.max_connections > 0 && self.connections >= self.max_connections
    }
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The server of this index.
    Server(usize),
    /// Servers are up, but all have as many connections as they may have.
    Full,
    /// No server is up, or all that are were tried.
    Down,
}

/// Chooses among the servers of one pool.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    /// Of round robin: how far behind its share each server is, by identity of the candidate.
    credit: Mutex<Vec<(u64, i64)>>,
}

/// A number that stands for a server of this name.
pub fn identity(name: &str) -> u64 {
    HASH.hash_one(name)
}

/// Not secret, and the same in every process, so that clients keep their servers over a restart.
const HASH: FixedState = FixedState::with_seed(0x7a_6861_756c);

impl Balancer {
    /// A balancer that has chosen nobody yet.
    pub const fn new(balance: Balance) -> Self {
        Self {
            balance,
            credit: Mutex::new(Vec::new()),
        }
    }

    /// Chooses a server for a client.
    pub fn choose(
        &self,
        candidates: &[Candidate],
        client: Option<IpAddr>,
        random: &mut fastrand::Rng,
    ) -> Choice {
        // One that did not take this connection is as good as down for it.
        let primaries_up = candidates
            .iter()
            .any(|c| c.is_usable() && !c.backup && !c.tried);
        let in_turn = |c: &Candidate| c.is_usable() && c.backup != primaries_up && !c.tried;
        let mut open = candidates
            .iter()
            .enumerate()
            .filter(|(_, c)| in_turn(c) && !c.is_full())
            .peekable();
        if open.peek().is_none() {
            return match candidates.iter().any(in_turn) {
                true => Choice::Full,
                false => Choice::Down,
            };
        }
        let chosen = match self.balance {
            Balance::RoundRobin => self.round_robin(open),
            Balance::LeastConnections => least_connections(open),
            Balance::RandomOfTwo => random_of_two(&open.collect::<Vec<_>>(), random),
            Balance::SourceHash => match client {
                Some(client) => by_source(open, client),
                // Clients of a UNIX socket have no address to tell them apart by.
                None => self.round_robin(open),
            },
        };
        chosen.map_or(Choice::Down, Choice::Server)
    }

    /// Smooth weighted round robin: everybody earns its share, whoever has most pays for all.
    fn round_robin<'a>(&self, open: impl Iterator<Item = (usize, &'a Candidate)>) -> Option<usize> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best: Option<(usize, usize)> = None;
        for (index, candidate) in open {
            let share = i64::from(candidate.share);
            total += share;
            let place = match credit.iter().position(|&(id, _)| id == candidate.identity) {
                Some(place) => place,
                None => {
                    credit.push((candidate.identity, 0));
                    credit.len() - 1
                }
            };
            credit[place].1 += share;
            if best.is_none_or(|(_, other)| credit[place].1 > credit[other].1) {
                best = Some((index, place));
            }
        }
        let (index, place) = best?;
        credit[place].1 -= total;
        Some(index)
    }
}

fn least_connections<'a>(open: impl Iterator<Item = (usize, &'a Candidate)>) -> Option<usize> {
    open.min_by(|(_, a), (_, b)| load_order(a, b))
        .map(|(index, _)| index)
}

/// Compares what each would carry for its share if it took one more.
fn load_order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    let load =
        |c: &Candidate, other: &Candidate| (c.connections as u128 + 1) * u128::from(other.share);
    load(a, b).cmp(&load(b, a))
}

/// Two different ones, each drawn by share; the less loaded.
fn random_of_two(open: &[(usize, &Candidate)], random: &mut fastrand::Rng) -> Option<usize> {
    let first = draw(open, None, random)?;
    let Some(second) = draw(open, Some(first), random) else {
        return Some(open[first].0);
    };
    let better = match load_order(open[second].1, open[first].1) {
        std::cmp::Ordering::Less => second,
        _ => first,
    };
    Some(open[better].0)
}

fn draw(
    open: &[(usize, &Candidate)],
    without: Option<usize>,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    let eligible = || {
        open.iter()
            .enumerate()
            .filter(move |&(place, _)| Some(place) != without)
    };
    let total: u64 = eligible().map(|(_, (_, c))| u64::from(c.share)).sum();
    if total == 0 {
        return None;
    }
    let mut ticket = random.u64(0..total);
    for (place, (_, candidate)) in eligible() {
        match ticket.checked_sub(u64::from(candidate.share)) {
            Some(rest) => ticket = rest,
            None => return Some(place),
        }
    }
    None
}

/// Weighted rendezvous hashing: when a server comes or goes, only the clients that it takes or had
/// change theirs.
fn by_source<'a>(
    open: impl Iterator<Item = (usize, &'a Candidate)>,
    client: IpAddr,
) -> Option<usize> {
    let client = client.to_canonical();
    let score = |c: &Candidate| {
        let hash = HASH.hash_one((client, c.identity));
        // From 0 to 1, both excluded.
        let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -f64::from(c.share) / uniform.ln()
    };
    open.max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b)))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn candidate(name: &str, weight: u32) -> Candidate {
        Candidate {
            share: weight,
            connections: 0,
            max_connections: 0,
            up: true,
            backup: false,
            tried: false,
            identity: identity(name),
        }
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(0x0a00_0000 + n).into())
    }

    fn run(balance: Balance, candidates: &mut [Candidate], times: u32) -> Vec<usize> {
        let balancer = Balancer::new(balance);
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; candidates.len()];
        for n in 0..times {
            match balancer.choose(candidates, client(n), &mut random) {
                Choice::Server(index) => {
                    counts[index] += 1;
                    candidates[index].connections += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    #[test]
    fn weights_are_kept_by_every_way_of_choosing() {
        for (balance, tolerance) in [
            (Balance::RoundRobin, 0),
            (Balance::LeastConnections, 1),
            (Balance::RandomOfTwo, 60),
            (Balance::SourceHash, 120),
        ] {
            let mut servers = [candidate("a", 3), candidate("b", 2), candidate("c", 1)];
            let counts = run(balance, &mut servers, 1200);
            for (count, expected) in counts.iter().zip([600_usize, 400, 200]) {
                assert!(
                    count.abs_diff(expected) <= tolerance,
                    "{balance:?}: {counts:?}"
                );
            }
        }
    }

    #[test]
    fn round_robin_spreads_evenly_within_a_turn() {
        let balancer = Balancer::new(Balance::RoundRobin);
        let servers = [candidate("a", 5), candidate("b", 1), candidate("c", 1)];
        let mut random = fastrand::Rng::with_seed(1);
        let turn: Vec<_> = (0..7)
            .map(|_| balancer.choose(&servers, None, &mut random))
            .collect();
        let expected = [0, 0, 1, 0, 2, 0, 0].map(Choice::Server);
        assert_eq!(turn, expected);
    }

    #[test]
    fn backups_serve_only_while_no_other_is_up() {
        for balance in [
            Balance::RoundRobin,
            Balance::LeastConnections,
            Balance::RandomOfTwo,
            Balance::SourceHash,
        ] {
            let balancer = Balancer::new(balance);
            let mut random = fastrand::Rng::with_seed(1);
            let mut servers = [candidate("a", 1), candidate("b", 1)];
            servers[1].backup = true;
            let mut choose =
                |servers: &[Candidate]| balancer.choose(servers, client(1), &mut random);
            assert_eq!(choose(&servers), Choice::Server(0));
            // Full is not down: the backup is no overflow.
            servers[0].connections = 1;
            servers[0].max_connections = 1;
            assert_eq!(choose(&servers), Choice::Full);
            servers[0].up = false;
            assert_eq!(choose(&servers), Choice::Server(1));
            servers[1].up = false;
            assert_eq!(choose(&servers), Choice::Down);
        }
    }

    #[test]
    fn a_server_that_was_tried_is_not_tried_again() {
        let balancer = Balancer::new(Balance::SourceHash);
        let mut random = fastrand::Rng::with_seed(1);
        let mut servers = [candidate("a", 1), candidate("b", 1)];
        let Choice::Server(first) = balancer.choose(&servers, client(9), &mut random) else {
            panic!("both are up");
        };
        servers[first].tried = true;
        let second = balancer.choose(&servers, client(9), &mut random);
        assert_eq!(second, Choice::Server(1 - first));
        servers[1 - first].tried = true;
        let third = balancer.choose(&servers, client(9), &mut random);
        assert_eq!(third, Choice::Down);
    }

    #[test]
    fn weight_nothing_takes_nothing() {
        let mut servers = [candidate("a", 0), candidate("b", 1)];
        assert_eq!(run(Balance::RandomOfTwo, &mut servers, 50), [0, 50]);
        servers[1].up = false;
        let balancer = Balancer::new(Balance::RoundRobin);
        let choice = balancer.choose(&servers, None, &mut fastrand::Rng::with_seed(1));
        assert_eq!(choice, Choice::Down);
    }

    #[test]
    fn clients_keep_their_server_when_another_goes() {
        let balancer = Balancer::new(Balance::SourceHash);
        let mut random = fastrand::Rng::with_seed(1);
        let all = ["a", "b", "c", "d"].map(|name| candidate(name, 1));
        let mut without_d = all;
        without_d[3].up = false;
        for n in 0..500 {
            let before = balancer.choose(&all, client(n), &mut random);
            let after = balancer.choose(&without_d, client(n), &mut random);
            if before != Choice::Server(3) {
                assert_eq!(before, after);
            }
        }
        // The same addresses, seen through an IPv6 socket.
        let v4 = balancer.choose(&all, client(5), &mut random);
        let mapped = "::ffff:10.0.0.5".parse().ok();
        assert_eq!(balancer.choose(&all, mapped, &mut random), v4);
    }

    #[test]
    fn the_least_loaded_is_chosen_for_its_weight() {
        let balancer = Balancer::new(Balance::LeastConnections);
        let mut servers = [candidate("a", 1), candidate("b", 3)];
        servers[0].connections = 1;
        servers[1].connections = 4;
        let choice = balancer.choose(&servers, None, &mut fastrand::Rng::with_seed(1));
        assert_eq!(choice, Choice::Server(1));
    }
}

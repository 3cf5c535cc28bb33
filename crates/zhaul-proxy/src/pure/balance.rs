//! Which server takes a connection.
//!
//! Pure: what is known about the servers goes in, an index comes out. The only state is whose turn it
//! is, behind a lock that is held for a few additions.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
    turns: Arc<Turns>,
}

/// Whose turn it is: smooth weighted round robin. Each time everybody who is in the running earns its
/// part of one connection, and whoever has most pays for it.
///
/// What is kept is in connections, not in weights. So nobody is owed or owes more than about one, and
/// weights that change, or a slow start, leave no debts of the old size behind.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Vec<Credit>>);

/// What a server has earned and not been given.
#[derive(Clone, Copy, Debug)]
struct Credit {
    identity: u64,
    earned: i64,
}

/// One connection, as [`Credit`] counts: fine enough for any two shares, and equal shares stay equal.
const CONNECTION: u128 = 1 << 40;

/// A number that stands for a server of this name.
pub fn identity(name: &str) -> u64 {
    HASH.hash_one(name)
}

/// Not secret, and the same in every process, so that clients keep their servers over a restart.
const HASH: FixedState = FixedState::with_seed(0x7a_6861_756c);

impl Balancer {
    /// A balancer that goes on with these turns.
    pub const fn new(balance: Balance, turns: Arc<Turns>) -> Self {
        Self { balance, turns }
    }

    /// Whose turn it is, for the balancer of the same pool in another configuration.
    pub fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
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
            Balance::RoundRobin => self.turns.next(open),
            Balance::LeastConnections => self.turns.next(least_loaded(open)),
            Balance::RandomOfTwo => random_of_two(&open.collect::<Vec<_>>(), random),
            Balance::SourceHash => match client {
                Some(client) => by_source(open, client),
                // Clients of a UNIX socket have no address to tell them apart by.
                None => self.turns.next(open),
            },
        };
        chosen.map_or(Choice::Down, Choice::Server)
    }
}

impl Turns {
    /// Forgets servers that are not among these.
    pub(crate) fn retain(&self, is_there: impl Fn(u64) -> bool) {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        credits.retain(|credit| is_there(credit.identity));
    }

    /// The next among those in the running, by their shares.
    fn next<'a>(
        &self,
        running: impl Iterator<Item = (usize, &'a Candidate)> + Clone,
    ) -> Option<usize> {
        let shares = running.clone().map(|(_, c)| u128::from(c.share));
        let total = shares.sum::<u128>().max(1);
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = 0;
        let mut best: Option<(usize, usize)> = None;
        for (
            index,
            Candidate {
                identity, share, ..
            },
        ) in running
        {
            // Where it is if all were in the running from the first time on; else it is looked for.
            let is_at =
                |place: &usize| credits.get(*place).is_some_and(|c| c.identity == *identity);
            let known = Some(index).filter(is_at);
            let known = known.or_else(|| credits.iter().position(|c| c.identity == *identity));
            let place = known.unwrap_or_else(|| {
                credits.push(Credit {
                    identity: *identity,
                    earned: 0,
                });
                credits.len() - 1
            });
            let earned = (u128::from(*share) * CONNECTION / total) as i64;
            credits[place].earned += earned;
            given += earned;
            if best.is_none_or(|(_, other)| credits[place].earned > credits[other].earned) {
                best = Some((index, place));
            }
        }
        let (index, place) = best?;
        credits[place].earned -= given;
        Some(index)
    }
}

/// Those with the smallest load. Who has nothing to do is not told apart by weight: there is no load
/// to compare, and it would never be the others' turn.
fn least_loaded<'a>(
    open: impl Iterator<Item = (usize, &'a Candidate)> + Clone,
) -> impl Iterator<Item = (usize, &'a Candidate)> + Clone {
    let any_idle = open.clone().any(|(_, c)| c.connections == 0);
    let least = open.clone().map(|(_, c)| c).min_by(|a, b| load_order(a, b));
    open.filter(move |(_, c)| match any_idle {
        true => c.connections == 0,
        false => least.is_some_and(|least| load_order(c, least).is_eq()),
    })
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

    fn balancer(balance: Balance) -> Balancer {
        Balancer::new(balance, Arc::default())
    }

    /// How often each is chosen while connections end before the next one comes.
    fn one_by_one(balancer: &Balancer, candidates: &[Candidate], times: usize) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(3);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..times {
            match balancer.choose(candidates, None, &mut random) {
                Choice::Server(index) => counts[index] += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    fn client(n: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(0x0a00_0000 + n).into())
    }

    fn run(balance: Balance, candidates: &mut [Candidate], times: u32) -> Vec<usize> {
        let balancer = balancer(balance);
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
        let balancer = balancer(Balance::RoundRobin);
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
            let balancer = balancer(balance);
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
        let balancer = balancer(Balance::SourceHash);
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
        let balancer = balancer(Balance::RoundRobin);
        let choice = balancer.choose(&servers, None, &mut fastrand::Rng::with_seed(1));
        assert_eq!(choice, Choice::Down);
    }

    #[test]
    fn clients_keep_their_server_when_another_goes() {
        let balancer = balancer(Balance::SourceHash);
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
        let balancer = balancer(Balance::LeastConnections);
        let mut servers = [candidate("a", 1), candidate("b", 3)];
        servers[0].connections = 1;
        servers[1].connections = 4;
        let choice = balancer.choose(&servers, None, &mut fastrand::Rng::with_seed(1));
        assert_eq!(choice, Choice::Server(1));
    }

    #[test]
    fn equal_loads_take_turns_as_often_as_their_weights_say() {
        let servers = ["a", "b", "c"].map(|name| candidate(name, 1));
        let least = balancer(Balance::LeastConnections);
        assert_eq!(one_by_one(&least, &servers, 60), [20; 3]);
        // The same while all are busy, and to the same degree.
        let busy = servers.map(|server| Candidate {
            connections: 7,
            ..server
        });
        assert_eq!(one_by_one(&least, &busy, 60), [20; 3]);
        let weighted = [candidate("a", 3), candidate("b", 2), candidate("c", 1)];
        let least = balancer(Balance::LeastConnections);
        assert_eq!(one_by_one(&least, &weighted, 60), [30, 20, 10]);
    }

    #[test]
    fn weights_that_change_leave_no_debts() {
        let ways = [Balance::RoundRobin, Balance::LeastConnections];
        for (balance, old) in ways.into_iter().flat_map(|way| [(way, 1), (way, 499)]) {
            let balancer = balancer(balance);
            let mut servers = [candidate("a", 1000), candidate("b", 1)];
            one_by_one(&balancer, &servers, old);
            servers[0].share = 1;
            assert_eq!(one_by_one(&balancer, &servers, 10), [5; 2], "{balance:?}");
            servers[1].share = 1000;
            let counts = one_by_one(&balancer, &servers, 10);
            assert!(counts[1] >= 9, "{balance:?}: {counts:?}");
        }
    }

    #[test]
    fn a_share_that_rises_with_each_choice_is_given_what_it_is() {
        let balancer = balancer(Balance::RoundRobin);
        let mut counts = [0; 2];
        for share in 1..=256 {
            let servers = [candidate("a", 256), candidate("b", share)];
            for (count, one) in counts.iter_mut().zip(one_by_one(&balancer, &servers, 1)) {
                *count += one;
            }
        }
        // The sum of share / (256 + share) is 79.
        assert!((75..=83).contains(&counts[1]), "{counts:?}");
    }
}

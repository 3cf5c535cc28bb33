//! Addresses that cannot be listened on together, found before the kernel is asked: it would say that
//! the address is in use, and not by whom.

use zhaul_service::{Clash, ListenAddr};

use super::Config;

/// A place in the configuration where an address is named.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The key: `listeners.web.listen`.
    pub(super) key: String,
    pub(super) address: ListenAddr,
    pub(super) reuse_port: bool,
}

/// The places whose address clashes with that of an earlier one, and what is wrong with each.
pub(super) fn clashes(places: &[Place]) -> Vec<(usize, String)> {
    let clash = |index: usize| {
        let earlier = places.iter().take(index);
        let what = earlier
            .filter_map(|other| clash(&places[index], other))
            .next();
        what.map(|what| (index, what))
    };
    (0..places.len()).filter_map(clash).collect()
}

impl Config {
    /// What is wrong with the addresses: pairs that cannot be listened on together.
    pub(crate) fn clashes(&self) -> Vec<String> {
        let listeners = self.listeners.iter().flat_map(|(name, listener)| {
            let place = |address: &ListenAddr| Place {
                key: format!("listeners.{name}.listen"),
                address: address.clone(),
                reuse_port: listener.reuse_port,
            };
            listener.listen.iter().map(place).collect::<Vec<_>>()
        });
        let alone = |key: &str, address: Option<ListenAddr>| {
            address.map(|address| Place {
                key: key.to_owned(),
                address,
                reuse_port: false,
            })
        };
        let places: Vec<_> = alone("admin", self.admin.clone())
            .into_iter()
            .chain(alone("metrics", self.metrics.clone()))
            .chain(listeners)
            .collect();
        let with_key = |(index, what): (usize, String)| format!("{}: {what}", places[index].key);
        clashes(&places).into_iter().map(with_key).collect()
    }
}

fn clash(one: &Place, other: &Place) -> Option<String> {
    let (address, key) = (&one.address, &other.key);
    match Clash::between(address, &other.address)? {
        Clash::Same => Some(format!("{address} is in {key} already (name it once)")),
        // The kernel gives each connection to the socket of the address that says more.
        Clash::Part { .. } if one.reuse_port && other.reuse_port => None,
        Clash::Part { part, whole } => Some(format!(
            "{part} is a part of {whole}, and one of the two is in {key} already (leave one out, or \
             give both reuse_port)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(one: &str, other: &str, reuse_port: bool) -> Option<String> {
        let place = |text: &str| Place {
            key: text.to_owned(),
            address: text.parse().unwrap(),
            reuse_port,
        };
        let mut clashes = clashes(&[place(one), place(other)]);
        clashes.pop().map(|(index, what)| {
            assert_eq!(index, 1);
            what
        })
    }

    #[test]
    fn addresses_that_cannot_be_listened_on_together_are_found() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", Some("name it once")),
            (
                "[::ffff:127.0.0.1]:80",
                "127.0.0.1:80",
                Some("name it once"),
            ),
            ("unix:/run/a", "unix:/run/a,mode=600", Some("name it once")),
            ("unix:@a", "unix:@a", Some("name it once")),
            (":80", "[::]:80", Some("name it once")),
            ("0.0.0.0:80", "127.0.0.1:80", Some("a part of")),
            ("[::1]:80", "[::]:80", Some("a part of")),
            ("[::]:80", "0.0.0.0:80", None),
            ("[::]:80", "127.0.0.1:80", None),
            ("127.0.0.1:0", "127.0.0.1:0", None),
            ("0.0.0.0:0", "127.0.0.1:0", None),
            ("127.0.0.1:80", "127.0.0.1:81", None),
            ("127.0.0.1:80", "127.0.0.2:80", None),
            ("unix:/run/a", "unix:/run/b", None),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                let what = found(one, other, false);
                assert_eq!(
                    what.is_some(),
                    expected.is_some(),
                    "{one} {other}: {what:?}"
                );
                assert!(what.unwrap_or_default().contains(expected.unwrap_or("")));
            }
        }
    }

    #[test]
    fn sockets_that_share_their_port_may_be_one_a_part_of_the_other() {
        assert_eq!(found("0.0.0.0:80", "127.0.0.1:80", true), None);
        assert!(found("127.0.0.1:80", "127.0.0.1:80", true).is_some());
    }
}

//! A listener at run time: what holds for the clients that arrive at it, and where they go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gate::Gate;
use super::pool::Pool;
use crate::config;
use crate::pure::client_hello::ClientHello;
use crate::pure::route;

/// A listener of the configuration.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) config: config::Listener,
    pub(crate) gate: Arc<Gate>,
    default: Option<Arc<Pool>>,
    routes: Vec<Arc<Pool>>,
}

impl Listener {
    /// One of the configuration, which names no pool that is not there; `known` is the one of this
    /// name before, if there was one.
    pub(crate) fn new(
        name: &str,
        config: &config::Listener,
        pools: &BTreeMap<String, Arc<Pool>>,
        known: Option<&Self>,
    ) -> Self {
        let pool = |name: &String| pools.get(name).map(Arc::clone);
        Self {
            name: name.to_owned(),
            gate: known.map_or_else(Arc::default, |old| Arc::clone(&old.gate)),
            default: config.to.as_ref().and_then(pool),
            routes: config.routes.iter().filter_map(|r| pool(&r.to)).collect(),
            config: config.clone(),
        }
    }

    /// Whether something has to be read before a pool can be chosen.
    pub(crate) fn wants_hello(&self) -> bool {
        !self.routes.is_empty()
    }

    /// The pool for a connection whose beginning was not looked at, or was not TLS.
    pub(crate) fn default_pool(&self) -> Option<&Arc<Pool>> {
        self.default.as_ref()
    }

    /// The pool for a connection that began with this ClientHello.
    pub(crate) fn pool_for(&self, hello: &ClientHello) -> Option<&Arc<Pool>> {
        let position = self
            .config
            .routes
            .iter()
            .position(|route| route::matches(route, hello));
        position
            .and_then(|index| self.routes.get(index))
            .or(self.default.as_ref())
    }
}

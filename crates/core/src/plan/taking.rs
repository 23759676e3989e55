//! Routes that a plugin takes from others.

use super::Plan;
use crate::route::{Route, Taken, taken};

impl Plan {
    /// The routes that a plugin takes from others in `next`, and does not take in this plan.
    pub fn newly_taken(&self, plugin: &str, next: &Plan) -> Vec<Taken> {
        let all = |plan: &Plan| [&plan.table.routes[..], &plan.given_up[..]].concat();
        let of = |plan: &Plan| -> (Vec<Route>, Vec<Route>) {
            all(plan).into_iter().partition(|route| route.plugin == plugin)
        };
        let (was, others) = of(self);
        let known = taken(&was, &others);
        let mut new = taken(&of(next).0, &others);
        new.retain(|one| !known.contains(one));
        new
    }
}

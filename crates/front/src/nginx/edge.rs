//! Which table nginx is to obey, which one it obeys, and what an operator should know of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::route::{Amendment, Section, ServerSettings};
use mfserv_core::wire::front::Warned;
use tokio::sync::watch;

/// What nginx does with the fragments of the routes.
const OF_ROUTES: Warned = Warned { count: 0, last_ms: 0, is_fault: false, is_of_routes: true };
/// The daemon takes a front that does not answer for 5 s for one that hangs. It is answered after so
/// long, although nginx still looks which fragments it can have.
const LATE: Duration = Duration::from_secs(3);
/// So often it is looked whether nginx serves at all.
const LOOK: Duration = Duration::from_millis(50);

/// The table that nginx is to obey.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The plan's generation; 0: none yet.
    pub generation: u64,
    /// Settings of the listening side. No app takes larger bodies than these say: each one's own
    /// limit is that of the front behind nginx.
    pub server: ServerSettings,
    /// By plugin.
    pub sections: BTreeMap<String, Arc<Section>>,
    /// The plugins with fragments.
    pub with_fragments: BTreeSet<String>,
    /// The largest body of each plugin with a limit of its own, bytes.
    limits: BTreeMap<String, u64>,
}

impl Wanted {
    /// Takes over an amendment, which is a whole table where `is_whole`. The cost depends only on
    /// what differs.
    pub fn amend(&mut self, generation: u64, amendment: Amendment, is_whole: bool) {
        if is_whole {
            self.sections.clear();
            self.with_fragments.clear();
            self.limits.clear();
        }
        for (plugin, section) in amendment.sections {
            match section.fragments.is_empty() {
                true => drop(self.with_fragments.remove(&plugin)),
                false => drop(self.with_fragments.insert(plugin.clone())),
            }
            match section.upstreams.values().filter_map(|spec| spec.max_body_bytes).max() {
                None => drop(self.limits.remove(&plugin)),
                Some(limit) => drop(self.limits.insert(plugin.clone(), limit)),
            }
            match section == Section::default() {
                true => drop(self.sections.remove(&plugin)),
                false => drop(self.sections.insert(plugin, Arc::new(section))),
            }
        }
        (self.generation, self.server) = (generation, amendment.server);
        let of_apps = self.limits.values().copied().max().unwrap_or(0);
        self.server.max_body_bytes = self.server.max_body_bytes.max(of_apps);
    }
}

/// What the tasks of this process share.
pub struct Edge {
    wanted: watch::Sender<Wanted>,
    /// The generation that nginx obeys.
    obeyed: watch::Sender<u64>,
    warnings: RefCell<BTreeMap<String, Warned>>,
}

impl Edge {
    /// Before the first table.
    pub fn new() -> Self {
        Self {
            wanted: watch::Sender::new(Wanted::default()),
            obeyed: watch::Sender::new(0),
            warnings: RefCell::default(),
        }
    }

    /// The table that nginx is to obey.
    pub fn wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// nginx is to obey this table from now on, unless it has a newer one.
    pub fn want(&self, generation: u64, amendment: Amendment, is_whole: bool) {
        self.wanted.send_if_modified(|wanted| {
            let is_newer = generation >= wanted.generation;
            if is_newer {
                wanted.amend(generation, amendment, is_whole);
            }
            is_newer
        });
    }

    /// The generation that nginx obeys.
    pub fn obeyed(&self) -> watch::Receiver<u64> {
        self.obeyed.subscribe()
    }

    /// nginx obeys the table of this generation; `said`: what an operator should know of, and whether
    /// that is a fault.
    pub fn obeys(&self, generation: u64, said: impl IntoIterator<Item = (String, bool)>) {
        let warned = |(sentence, is_fault)| (sentence, Warned { is_fault, ..OF_ROUTES });
        let warnings = said.into_iter().map(warned);
        *self.warnings.borrow_mut() = warnings.collect();
        self.obeyed.send_modify(|obeyed| *obeyed = generation.max(*obeyed));
    }

    /// Answers the daemon in time while nginx serves, if only with what was in force before.
    pub async fn answer_in_time(&self, serves: &Cell<bool>) -> Infallible {
        let mut wanted = self.wanted();
        loop {
            // An error: nobody wants anything any more.
            let _ = wanted.changed().await;
            let generation = wanted.borrow_and_update().generation;
            let mut obeyed = self.obeyed();
            let in_time = obeyed.wait_for(|obeyed| *obeyed >= generation);
            if tokio::time::timeout(LATE, in_time).await.is_ok() {
                continue;
            }
            while !serves.get() {
                tokio::time::sleep(LOOK).await;
            }
            let generation = wanted.borrow_and_update().generation;
            if *self.obeyed.borrow() < generation {
                let said = "nginx still looks which fragments it can have; those of before serve";
                self.warnings.borrow_mut().insert(said.into(), OF_ROUTES);
                self.obeyed.send_replace(generation);
            }
        }
    }

    /// What an operator should know of.
    pub fn warnings(&self) -> BTreeMap<String, Warned> {
        self.warnings.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::route::AppFragments;

    use super::*;

    #[test]
    fn an_amendment_changes_only_what_it_names() {
        let route = |plugin: &str| mfserv_core::route::Route {
            host: None,
            prefix: format!("/{plugin}"),
            pattern: false,
            strip_prefix: false,
            maintenance: None,
            error_pages: None,
            target: mfserv_core::route::Target::Fixed { status: 200, body: String::new() },
            plugin: plugin.into(),
            app: "a".into(),
        };
        let section = |plugin: &str| Section { routes: vec![route(plugin)], ..Section::default() };
        let of = |plugins: &[&str], gone: &[&str]| Amendment {
            server: ServerSettings::default(),
            not_found_page: None,
            sections: plugins
                .iter()
                .map(|plugin| (plugin.to_string(), section(plugin)))
                .chain(gone.iter().map(|plugin| (plugin.to_string(), Section::default())))
                .collect(),
        };
        let names = |wanted: &Wanted| wanted.sections.keys().cloned().collect::<Vec<_>>().join(" ");
        let mut wanted = Wanted::default();
        wanted.amend(1, of(&["a", "b"], &[]), true);
        assert_eq!(names(&wanted), "a b");
        wanted.amend(2, of(&["c"], &["a"]), false);
        assert_eq!((names(&wanted).as_str(), wanted.generation), ("b c", 2));
        wanted.amend(3, of(&["d"], &[]), true);
        assert_eq!((names(&wanted).as_str(), wanted.with_fragments.len()), ("d", 0));
        let mut with = of(&["e"], &[]);
        let apps = BTreeMap::from([("a".to_string(), AppFragments::default())]);
        with.sections.get_mut("e").unwrap().fragments.apps = apps;
        wanted.amend(4, with, false);
        assert!(wanted.with_fragments.contains("e"));
        wanted.amend(5, of(&["e"], &[]), false);
        assert!(wanted.with_fragments.is_empty());
    }

    #[test]
    fn an_older_table_is_not_obeyed() {
        let edge = Edge::new();
        let empty = || Amendment {
            server: ServerSettings::default(),
            not_found_page: None,
            sections: BTreeMap::new(),
        };
        edge.want(5, empty(), true);
        edge.want(4, empty(), true);
        assert_eq!(edge.wanted().borrow().generation, 5);
    }
}

//! The locations: where a plugin brings a fragment along, and what else wins over these.

use std::collections::BTreeSet;

use mfserv_core::route::redirects::FILE;
use mfserv_core::route::{Route, Target};

use super::Writer;
use crate::embedded::{COMPRESSED_LEAST, mime};
use crate::nginx::pieces::{Piece, PieceId, Place};
use crate::nginx::text::{Text, literally, quoted};

impl Writer<'_> {
    /// Locations for the requests that fragments are for, and the one for all others, by the routes
    /// with this host (`None`: without a host).
    pub(super) fn locations(&self, text: &mut Text, host: Option<&str>) {
        let all = self.sections.values().flat_map(|one| &one.routes);
        let routes = all.filter(|route| route.host.as_deref() == host);
        let with: Vec<(usize, &Route, &Piece<'_>)> = match self.pieces.is_empty() {
            true => Vec::new(),
            false => routes
                .clone()
                .enumerate()
                .filter_map(|(at, route)| Some((at, route, self.piece(route)?)))
                .collect(),
        };
        if !self.pieces.is_empty() {
            self.own_pages(text, host);
        }
        for (at, route) in routes.enumerate().take(with.last().map_or(0, |(last, ..)| last + 1)) {
            let own = with.iter().find(|(of, ..)| *of == at);
            let wins = || with.iter().any(|(later, other, _)| *later > at && overlap(route, other));
            match own {
                _ if route.prefix == "/" => {}
                Some((_, _, piece)) => self.location(text, route, piece),
                None if wins() => {
                    let head = format!("location ~ {}", pattern(route));
                    text.block(&head, |text| self.pass(text, route));
                }
                None => {}
            }
        }
        let root = with.iter().find(|(_, route, _)| route.prefix == "/");
        if let Some((_, route, piece)) = root {
            self.location(text, route, piece);
        }
        let has_root = root.is_some();
        if !has_root {
            text.block("location /", |text| self.pass_to_front(text));
        }
    }

    /// The pages of the node, which no location of a plugin takes. On a host of an app, names that
    /// any site may have are its own.
    fn own_pages(&self, text: &mut Text, host: Option<&str>) {
        let health = self.server.health_path.as_deref().filter(|path| !path.starts_with("/__"));
        let of_node = ["/status", "/uuid"].into_iter().filter(|_| host.is_none());
        let paths: BTreeSet<&str> = of_node.chain(health).collect();
        for path in paths {
            let head = format!("location = {}", quoted(path));
            text.block(&head, |text| self.pass_to_front(text));
        }
        text.block("location ^~ /__", |text| self.pass_to_front(text));
    }

    /// The fragment for the requests of a route.
    fn piece(&self, route: &Route) -> Option<&Piece<'_>> {
        let is_to_app = matches!(route.target, Target::Upstream { .. });
        if route.maintenance.is_some() && !is_to_app {
            // The front answers in place of nginx. What is said of an app stays: nginx would obey it
            // again only after the app is open.
            return None;
        }
        let place = match route.target {
            Target::Upstream { .. } => Place::Location(route.app.clone()),
            Target::Static { .. } | Target::Site { .. } => Place::Static(route.app.clone()),
            Target::Fixed { .. } => return None,
        };
        let id = PieceId { plugin: route.plugin.clone(), place };
        self.pieces.iter().find(|piece| piece.id == id)
    }

    fn location(&self, text: &mut Text, route: &Route, piece: &Piece<'_>) {
        let head = match route.prefix.as_str() {
            "/" => "location /".to_string(),
            _ => format!("location ~ {}", pattern(route)),
        };
        text.block(&head, |text| {
            match &route.target {
                Target::Site { fallback, .. } if !fallback.is_empty() => self.pass(text, route),
                Target::Static { root } | Target::Site { root, .. } => {
                    self.files(text, route, root);
                    if matches!(route.target, Target::Site { .. }) {
                        hide_rules(text, route);
                    }
                    self.compression(text, piece);
                    if !has_directive(&piece.fragment.text, &["absolute_redirect"]) {
                        // Also behind a proxy that has another scheme, host or port.
                        text.line("absolute_redirect off;");
                    }
                }
                _ => self.pass(text, route),
            }
            self.add_fields(text);
            text.fragment(piece);
        });
    }

    fn pass(&self, text: &mut Text, route: &Route) {
        text.line(format!("set $plugin {};", quoted(&route.plugin)));
        self.pass_to_front(text);
    }

    /// With fields of its own: a fragment with a field for the whole server takes those of `http`
    /// away.
    fn pass_to_front(&self, text: &mut Text) {
        self.proxy_fields(text);
        text.line("proxy_pass http://mfserv_front;");
    }

    /// Files with a fragment are nginx's own.
    fn files(&self, text: &mut Text, route: &Route, root: &std::path::Path) {
        text.line(format!("set $plugin {};", quoted(&route.plugin)));
        if route.host.is_none() {
            self.no_strangers(text);
        }
        self.moves(text);
        let root = quoted(&format!("{}/$mfserv_rest", root.display()));
        match route.prefix.as_str() {
            "/" => text.line(format!("root {};", root.replace("/$mfserv_rest", ""))),
            _ => text.line(format!("alias {root};")),
        }
        let app = format!("{}/{}", route.plugin, route.app);
        let mut upstreams = self.sections.values().flat_map(|one| &one.upstreams);
        if upstreams.any(|(name, spec)| *name == app && spec.fastcgi.is_some()) {
            text.line("if ($uri ~ \"[^/]\\.php(?:/|$)\") { return 404; }");
        }
        if !self.server.static_dotfiles {
            text.line("if ($uri ~ \"/\\\\.\") { return 404; }");
        }
    }

    /// Sends the compressed copies beside files, and compresses files, as the front does. A fragment
    /// that says something of that itself has its way: nginx would refuse it as a duplicate.
    fn compression(&self, text: &mut Text, piece: &Piece<'_>) {
        let (copies, compresses) = (self.site.copies, self.server.static_compression);
        let is_asked = copies.gzip || copies.brotli || compresses;
        if !is_asked || has_directive(&piece.fragment.text, &["gzip", "brotli"]) {
            return;
        }
        for (is_there, directive) in [
            (copies.brotli, "brotli_static on;"),
            (copies.gzip, "gzip_static on;"),
            (true, "gzip_vary on;"),
            // Also for proxies and for HTTP/1.0.
            (true, "gzip_proxied any;"),
            (true, "gzip_http_version 1.0;"),
        ] {
            if is_there {
                text.line(directive);
            }
        }
        if compresses {
            compress(text);
        }
    }
}

/// Compresses what the front compresses.
fn compress(text: &mut Text) {
    let types = mime::ENDINGS.split_whitespace().map(|ending| mime::of(&format!("a.{ending}")));
    let types = types.chain(["text/plain"]).filter(|one| mime::is_compressible(one));
    // nginx has it always, and would warn.
    let types: BTreeSet<&str> = types.filter(|one| *one != "text/html").collect();
    let types = Vec::from_iter(types).join(" ");
    text.line("gzip on;");
    text.line(format!("gzip_min_length {COMPRESSED_LEAST};"));
    text.line(format!("gzip_types {types};"));
}

/// Nobody gets the rules of a site, as with the front: nginx does not obey them.
fn hide_rules(text: &mut Text, route: &Route) {
    let (variable, pattern) = match route.prefix.as_str() {
        "/" => ("$uri", "^/+"),
        _ => ("$mfserv_rest", "^/*"),
    };
    text.line(format!("if ({variable} ~ \"{pattern}{FILE}$\") {{ return 404; }}"));
}

/// True if a fragment has a directive that begins with one of these words: not if a comment has it.
fn has_directive(text: &str, words: &[&str]) -> bool {
    let code = text.lines().map(without_comment);
    let mut directives = code.flat_map(|code| code.split([';', '{', '}'])).map(str::trim_start);
    directives.any(|one| words.iter().any(|word| one.starts_with(word)))
}

/// A line of a configuration, as far as its comment.
fn without_comment(line: &str) -> &str {
    let begins_word = |at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|one| one.is_whitespace() || matches!(one, ';' | '{' | '}'))
    };
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| begins_word(*at));
    &line[..comment.unwrap_or(line.len())]
}

/// The paths of a route, as a regular expression in quotation marks.
fn pattern(route: &Route) -> String {
    let prefix = match route.pattern {
        true => format!("(?:{})", route.prefix),
        false => literally(&route.prefix),
    };
    quoted(&format!("^{prefix}(?:/(?<mfserv_rest>.*))?$"))
}

/// True if there may be paths that both routes match.
fn overlap(one: &Route, other: &Route) -> bool {
    let is_below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    one.pattern
        || other.pattern
        || is_below(&one.prefix, &other.prefix)
        || is_below(&other.prefix, &one.prefix)
}

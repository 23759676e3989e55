//! Sites of files: written as they are, or built by a tool of Node.

use super::node::{FILE, Package, script_line};
use super::procfile::short;
use super::{Evidence, FILES, Finding, Listing, Web};

/// Tools that build a site: the word of the build script, its name, its directory. Those with
/// one page have routes that only its script knows.
const TOOLS: &[(&str, &str, &str, bool)] = &[
    ("vite", "Vite", "dist", true),
    ("react-scripts", "Create React App", "build", true),
    ("vue-cli-service", "Vue CLI", "dist", true),
    ("parcel", "Parcel", "dist", true),
    ("astro", "Astro", "dist", false),
    ("eleventy", "Eleventy", "_site", false),
    ("webpack", "webpack", "dist", true),
    ("rollup", "Rollup", "dist", true),
    ("esbuild", "esbuild", "dist", true),
];

/// Of those and of tools for servers, the ones that write into their directory unless their
/// configuration says something else.
const WRITERS: &[(&str, &str)] =
    &[("vite", "dist"), ("react-scripts", "build"), ("next", ".next"), ("nuxt", ".output")];

/// Where `outDir` is looked for.
const CONFIGURATIONS: &[&str] = &[
    "vite.config.js",
    "vite.config.ts",
    "vite.config.mjs",
    "astro.config.mjs",
    "astro.config.js",
    "astro.config.ts",
];
/// The adapter of SvelteKit that makes a site, into `build`, whatever Vite does.
const SVELTE_SITE: (&str, &str, &str) = ("@sveltejs/adapter-static", "SvelteKit", "build");

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let package = Package::read(listing).unwrap_or_default();
    let build = package.build.as_deref().unwrap_or_default();
    let mut tool = TOOLS.iter().find(|(word, ..)| has_word(build, word)).copied();
    let (adapter, title, dir) = SVELTE_SITE;
    if let Some((word, ..)) = tool.filter(|(word, ..)| *word == "vite" && package.has(adapter)) {
        let config = listing.text("svelte.config.js").unwrap_or_default();
        tool = Some((word, title, dir, config.contains("index.html")));
    }
    let (web, title, evidence) = if let Some((_, title, dir, is_single_page)) = tool {
        let dir = out_dir(listing).unwrap_or_else(|| dir.to_string());
        let line = script_line(listing, FILE, "build");
        let says = format!("has build: {} (into {dir}/)", short(build));
        let web = Web::Files { dir, is_single_page };
        (web, format!("a site that {title} builds"), Evidence::new(FILE, line, says))
    } else if let Some(dir) = made_by_hand(&package, listing) {
        let line = script_line(listing, FILE, "build");
        let says = format!("has build: {} (into {dir}/)", short(build));
        let web = Web::Files { dir, is_single_page: false };
        (web, "a site that its build makes".into(), Evidence::new(FILE, line, says))
    } else {
        let dirs = ["", "public", "dist", "build", "_site", "www"];
        let has_index = |dir: &&str| listing.has(&index(dir));
        let Some(dir) = dirs.into_iter().find(has_index) else { return Vec::new() };
        let web = Web::Files { dir: dir.into(), is_single_page: false };
        (web, "a site of files".into(), Evidence::new(&index(dir), 0, "is there"))
    };
    let mut finding = Finding::new("static", &title, FILES, Some(web));
    finding.evidence.push(evidence);
    vec![finding]
}

/// The directory that a build of the author's own makes: one of the usual names, in its line or in the
/// script that it runs. Only where nothing else is a server or a page.
fn made_by_hand(package: &Package, listing: &Listing) -> Option<String> {
    let build = package.build.as_deref().filter(|_| package.start.is_none())?;
    if listing.has("index.html") {
        return None;
    }
    let scripts = build.split_whitespace().filter_map(|word| {
        let word = word.trim_start_matches("./");
        listing.text(word).filter(|_| word.contains('.'))
    });
    let texts: Vec<&str> = [build].into_iter().chain(scripts).collect();
    let named = |dir: &&&str| {
        texts.iter().any(|text| {
            let sign = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
            text.match_indices(**dir).any(|(at, _)| {
                let (before, after) = (&text[..at], &text[at + dir.len()..]);
                let before = before.strip_suffix("./").unwrap_or(before);
                !before.ends_with(|c: char| sign(c) || c == '/')
                    && after.starts_with(['/', '"', '\'', '`', ' ', ';', '&'])
                    && !before.trim_end().ends_with("run")
                    || after.is_empty() && before.ends_with(' ')
            })
        })
    };
    ["dist", "_site", "public", "out", "build", "www"].iter().find(named).map(|dir| (*dir).into())
}

fn has_word(script: &str, word: &str) -> bool {
    script.split([' ', '&', '/']).any(|it| it == word)
}

/// The directory that the build of an app makes that is no site, if its tool alone says it.
pub(super) fn made(package: &Package, listing: &Listing) -> Option<String> {
    let build = package.build.as_deref()?;
    let (_, dir) = WRITERS.iter().find(|(word, _)| has_word(build, word))?;
    let is_configured = build.contains("--outDir")
        || CONFIGURATIONS
            .iter()
            .filter_map(|name| listing.text(name))
            .any(|text| text.contains("outDir"));
    match is_configured {
        true => out_dir(listing),
        false => Some((*dir).to_string()),
    }
}

fn index(dir: &str) -> String {
    if dir.is_empty() { "index.html".into() } else { format!("{dir}/index.html") }
}

/// `outDir` of the configuration of Vite or Astro.
pub(super) fn out_dir(listing: &Listing) -> Option<String> {
    named_dir(CONFIGURATIONS.iter().find_map(|name| listing.text(name))?, "outDir")
}

/// The directory that a configuration gives for a key, in quotes; one below the app's.
pub(super) fn named_dir(text: &str, key: &str) -> Option<String> {
    let mut named = text.match_indices(key).filter_map(|(at, _)| {
        let is_whole = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        text[at + key.len()..].strip_prefix(':').filter(|_| is_whole)
    });
    let after = named.next()?.trim_start();
    let quote = after.chars().next().filter(|c| ['"', '\'', '`'].contains(c))?;
    let dir = after[1..].split(quote).next()?.trim_start_matches("./").trim_end_matches('/');
    let inside = !dir.is_empty() && !dir.starts_with('/') && !dir.contains("..");
    inside.then(|| dir.to_string())
}

//! Frameworks of Node whose build makes a server: a package says which.

use super::Listing;
use super::node::Package;
use super::sites::{named_dir, out_dir};

struct Framework {
    /// The package that makes a server of the build.
    package: &'static str,
    /// What it makes, for people.
    title: &'static str,
    /// What the build script calls; empty for anything.
    build: &'static str,
    /// Where it is chosen. Packages that nobody needs any more are often still in the list.
    configurations: &'static [&'static str],
    /// What is in there if it makes no server after all; empty for nothing.
    unless: &'static str,
    /// The directory that the build makes.
    dir: &'static str,
    /// What starts it; `DIR` is that directory.
    command: &'static str,
}

const SVELTE: &[&str] = &[
    "svelte.config.js",
    "svelte.config.mjs",
    "svelte.config.ts",
    "vite.config.js",
    "vite.config.ts",
];
const ASTRO: &[&str] = &["astro.config.mjs", "astro.config.js", "astro.config.ts"];
/// The server of SvelteKit: it has to be told that a proxy is before it.
pub(super) const SVELTE_SERVER: &str = "@sveltejs/adapter-node";

const FRAMEWORKS: &[Framework] = &[
    Framework {
        package: SVELTE_SERVER,
        title: "a SvelteKit server",
        build: "vite",
        configurations: SVELTE,
        unless: "",
        dir: "build",
        command: "node DIR",
    },
    Framework {
        package: "@astrojs/node",
        title: "an Astro server",
        build: "astro",
        configurations: ASTRO,
        // That is a part of a server of the author's.
        unless: "middleware",
        dir: "dist",
        command: "node DIR/server/entry.mjs",
    },
    Framework {
        package: "nuxt",
        title: "a Nuxt server",
        build: "nuxt build",
        configurations: &[],
        unless: "",
        dir: ".output",
        command: "node DIR/server/index.mjs",
    },
    Framework {
        package: "@solidjs/start",
        title: "a SolidStart server",
        build: "vinxi build",
        configurations: &[],
        unless: "",
        dir: ".output",
        command: "node DIR/server/index.mjs",
    },
    Framework {
        package: "@remix-run/serve",
        title: "a Remix server",
        build: "remix",
        configurations: &[],
        unless: "",
        dir: "build",
        command: "npx --no-install remix-serve DIR/server/index.js",
    },
    Framework {
        package: "@react-router/serve",
        title: "a React Router server",
        build: "react-router",
        configurations: &[],
        unless: "",
        dir: "build",
        command: "npx --no-install react-router-serve DIR/server/index.js",
    },
];

/// The server that a build makes.
pub(super) struct Server {
    pub(super) title: &'static str,
    pub(super) package: &'static str,
    pub(super) command: String,
    /// The directory that the build makes.
    pub(super) made: String,
}

pub(super) fn of(package: &Package, listing: &Listing) -> Option<Server> {
    let build = package.build.as_deref()?;
    let one = FRAMEWORKS.iter().find(|one| {
        let texts: Vec<&str> =
            one.configurations.iter().filter_map(|name| listing.text(name)).collect();
        let chooses = |text: &&str| {
            text.contains(one.package) && (one.unless.is_empty() || !text.contains(one.unless))
        };
        package.has(one.package)
            && build.contains(one.build)
            && (texts.is_empty() || texts.iter().any(chooses))
    })?;
    let configured = match one.package {
        SVELTE_SERVER => {
            let texts = SVELTE.iter().filter_map(|name| listing.text(name));
            texts.filter_map(|text| named_dir(text, "out")).next()
        }
        "@astrojs/node" => out_dir(listing),
        _ => None,
    };
    let made = configured.unwrap_or_else(|| one.dir.to_string());
    let command = one.command.replace("DIR", &made);
    Some(Server { title: one.title, package: one.package, command, made })
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Web, readings};
    use super::*;

    const SVELTE_PACKAGE: &str = r#"{"scripts": {"build": "vite build"},
        "devDependencies": {"@sveltejs/adapter-node": "5", "@sveltejs/adapter-static": "3"}}"#;

    #[track_caller]
    fn found(files: &[(&str, &str)]) -> Finding {
        readings(&Listing::of(files)).remove(0)
    }

    #[track_caller]
    fn command(files: &[(&str, &str)]) -> (String, String) {
        let found = found(files);
        let Some(Web::Command(line)) = found.web else { panic!("{:?}", found.web) };
        (line, found.made.unwrap_or_default())
    }

    #[test]
    fn a_package_says_that_a_build_makes_a_server_and_no_pages() {
        for (build, package, line, made) in [
            ("vite build", "@sveltejs/adapter-node", "node build", "build"),
            ("astro build", "@astrojs/node", "node dist/server/entry.mjs", "dist"),
            ("nuxt build", "nuxt", "node .output/server/index.mjs", ".output"),
            ("vinxi build", "@solidjs/start", "node .output/server/index.mjs", ".output"),
            (
                "remix vite:build",
                "@remix-run/serve",
                "npx --no-install remix-serve build/server/index.js",
                "build",
            ),
            (
                "react-router build",
                "@react-router/serve",
                "npx --no-install react-router-serve build/server/index.js",
                "build",
            ),
        ] {
            let text = format!(
                r#"{{"scripts": {{"start": "vite preview", "build": "{build}"}},
                    "dependencies": {{"{package}": "1"}}}}"#
            );
            let wanted = (line.to_string(), made.to_string());
            assert_eq!(command(&[("package.json", &text)]), wanted);
            // What its author has said goes first.
            let text = text.replace("vite preview", "remix-serve x.js");
            assert_eq!(command(&[("package.json", &text)]).0, "npm --silent start");
        }
    }

    #[test]
    fn a_configuration_says_whether_and_where_the_server_is_made() {
        let with = |file: &'static str, text: &'static str, package: &'static str| {
            [("package.json", package), (file, text)]
        };
        let svelte = "import adapter from '@sveltejs/adapter-node'\nadapter({ timeout: '1', out: './made' })";
        let files = with("svelte.config.js", svelte, SVELTE_PACKAGE);
        assert_eq!(command(&files), ("node made".into(), "made".into()));
        let pages = "import adapter from '@sveltejs/adapter-static'\n";
        let site = found(&with("svelte.config.js", pages, SVELTE_PACKAGE));
        let web = Web::Files { dir: "build".into(), is_single_page: false };
        assert_eq!((site.web, site.variables), (Some(web), Vec::new()));
        let astro =
            r#"{"scripts": {"build": "astro build"}, "dependencies": {"@astrojs/node": "1"}}"#;
        for (text, is_server) in [
            ("import node from '@astrojs/node'\nnode({ mode: 'standalone' })", true),
            ("import node from '@astrojs/node'\nnode({ mode: 'middleware' })", false),
            ("export default {}", false),
        ] {
            let web = found(&with("astro.config.mjs", text, astro)).web;
            assert_eq!(matches!(web, Some(Web::Command(_))), is_server, "{text}");
        }
    }

    #[test]
    fn the_server_of_svelte_is_told_of_the_front_however_it_is_started() {
        let names = |files: &[(&str, &str)]| {
            let all = found(files).variables.into_iter().filter(|one| !one.is_for_deployments);
            all.map(|one| format!("{}={}", one.name, one.value)).collect::<Vec<_>>()
        };
        let wanted = [
            "PROTOCOL_HEADER=x-forwarded-proto",
            "HOST_HEADER=host",
            "ADDRESS_HEADER=x-forwarded-for",
        ];
        let package = ("package.json", SVELTE_PACKAGE);
        assert_eq!(names(&[package]), wanted);
        assert_eq!(names(&[package, ("Procfile", "web: node build\n")]), wanted);
        let other = SVELTE_PACKAGE.replace("adapter-node", "adapter-auto");
        assert!(names(&[("package.json", &other), ("Procfile", "web: x\n")]).is_empty());
    }
}

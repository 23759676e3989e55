//! A build that was to make a site has made one, or something else.

use std::path::Path;

use mfserv_core::{Diagnostic, Kind};

use super::Wanted;

/// Files of servers that builds make, by their framework or by habit, and what starts each.
const SERVERS: &[(&str, &str)] = &[
    ("build/index.js", "node build"),
    (".output/server/index.mjs", "node .output/server/index.mjs"),
    ("dist/server/entry.mjs", "node dist/server/entry.mjs"),
    ("dist/server/index.js", "node dist/server/index.js"),
    ("dist/server/index.mjs", "node dist/server/index.mjs"),
    ("dist/server.js", "node dist/server.js"),
    ("dist/server.mjs", "node dist/server.mjs"),
    ("dist/main.js", "node dist/main.js"),
    ("dist/index.js", "node dist/index.js"),
    ("dist/index.mjs", "node dist/index.mjs"),
    ("build/server/index.js", "node build/server/index.js"),
    ("build/server.js", "node build/server.js"),
    (".next/BUILD_ID", "npx next start"),
];
/// What SvelteKit makes before an adapter makes an app of it.
const NO_ADAPTER: &str = ".svelte-kit/output/server/index.js";

/// Refuses a build without a page; `dir` is where it has run.
pub(super) fn check(dir: &Path, wanted: &Wanted<'_>) -> Result<(), Diagnostic> {
    let Some(built) = wanted.finding.served() else { return Ok(()) };
    if dir.join(built).join("index.html").is_file() {
        return Ok(());
    }
    let problem =
        Diagnostic::error("the build has made no page").kind(Kind::BadConfiguration).because(
            format!("{}/index.html is not there after the build script", dir.join(built).display()),
        );
    if let Some((file, command)) = SERVERS.iter().find(|(file, _)| dir.join(file).is_file()) {
        return Err(problem.because(format!("{file} is there, which may be a server")).help(
            format!(
                "write a Procfile with the line `web: {command}`, whose server listens on $PORT"
            ),
        ));
    }
    if dir.join(NO_ADAPTER).is_file() {
        return Err(problem
            .because("SvelteKit makes a server or a site only with an adapter for it")
            .help(
                "`npm install -D @sveltejs/adapter-node`, and name it in svelte.config.js in place of \
                 the one there; @sveltejs/adapter-static makes a site",
            ));
    }
    Err(problem.help("a Procfile, or `mfserv init`, says what is served instead"))
}

#[cfg(test)]
mod tests {
    use super::super::{Lasting, Purpose};
    use super::*;
    use crate::discover::{Listing, readings};

    #[test]
    fn a_build_that_has_made_a_server_is_told_the_line_that_starts_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::write(dir.join("package.json"), r#"{"scripts": {"build": "vite build"}}"#)
            .unwrap();
        let finding = readings(&Listing::read(dir).unwrap()).remove(0);
        let wanted = Wanted {
            source: dir,
            finding: &finding,
            name: "shop",
            purpose: Purpose::Deploy,
            at_root: true,
            builds_at_edits: false,
            lasting: &Lasting::default(),
            named: &[],
        };
        let said = || check(dir, &wanted).unwrap_err().to_string();
        let make = |file: &str| {
            std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.join(file), "").unwrap();
        };
        assert!(said().contains("a Procfile, or"), "{}", said());
        make(NO_ADAPTER);
        assert!(said().contains("@sveltejs/adapter-node"), "{}", said());
        make("dist/server/index.js");
        assert!(said().contains("`web: node dist/server/index.js`"), "{}", said());
        make("build/index.js");
        assert!(said().contains("`web: node build`"), "{}", said());
        make("dist/index.html");
        check(dir, &wanted).unwrap();
    }
}

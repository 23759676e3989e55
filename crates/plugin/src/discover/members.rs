//! Members of a workspace that are servers: they are started from its root, where their lock and the
//! members are that they need.

use super::node::{FILE, Package, script_line};
use super::procfile::short;
use super::{Evidence, Finding, Listing, PROGRAM, Web};
use crate::build::workspace::{LOCKS, Members, PNPM, arguments, tool};

/// A member of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its directory below the root.
    pub dir: String,
    /// How the others call it.
    pub name: String,
    /// Its own `build` script runs, as the root has none.
    pub is_built: bool,
}

/// One reading for each member with a server. Anything else that is found goes before them.
pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let (root, pnpm) = (listing.text(FILE), listing.text(PNPM));
    let Some(root) = root.and_then(|root| serde_json::from_str(root).ok()) else {
        return Vec::new();
    };
    let members = Members::of(&root, pnpm.unwrap_or_default());
    let lock = LOCKS.into_iter().find(|lock| listing.has(lock)).unwrap_or_default();
    let lists = listing.ending(FILE).map(|(file, _)| file);
    let inside = lists.filter_map(|file| Some((file, file.strip_suffix(FILE)?.strip_suffix('/')?)));
    let found = inside.filter(|(_, dir)| members.has(dir)).filter_map(|(file, dir)| {
        let package = Package::read_at(listing, file)?;
        let says = format!("has start: {}", short(package.server()?));
        let name = package.name.clone().unwrap_or_else(|| format!("./{dir}"));
        let member = Member { dir: dir.into(), name, is_built: package.build.is_some() };
        let words = arguments(lock, &member.dir, &member.name, &["start"]);
        let web = Web::Command(format!("{} {}", tool(lock), words.join(" ")));
        let title = "a Node server of a workspace";
        let mut finding = Finding::new(dir, title, PROGRAM + 1, Some(web));
        finding.evidence.push(Evidence::new(file, script_line(listing, file, "start"), says));
        finding.build = package.build;
        finding.member = Some(member);
        Some(finding)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{choose, readings};
    use super::*;

    #[test]
    fn the_members_of_a_workspace_that_are_servers_can_be_chosen_from_its_root() {
        let root = ("package.json", r#"{"workspaces": ["packages/*"]}"#);
        let api = (
            "packages/api/package.json",
            "{\n\"name\": \"@shop/api\",\n\"scripts\": {\n\
                    \"start\": \"node x.js\", \"build\": \"tsc\"}}",
        );
        let web = ("packages/web/package.json", r#"{"scripts": {"start": "vite"}}"#);
        let mail = ("packages/mail/package.json", r#"{"scripts": {"start": "node mail.js"}}"#);
        let beside = ("old/package.json", r#"{"scripts": {"start": "node old.js"}}"#);
        let lock = ("package-lock.json", "{}");
        let of = |files: &[(&str, &str)], asked| {
            choose(&readings(&Listing::of(files)), asked, Path::new("shop"))
        };
        let found = of(&[root, api, web, beside, lock], None).unwrap();
        assert_eq!(
            found.web,
            Some(Web::Command("npm --silent start --workspace packages/api".into()))
        );
        assert_eq!(
            found.evidence[0].to_string(),
            "packages/api/package.json:4 has start: node x.js"
        );
        assert!(found.has_node && found.build.is_some() && found.member.unwrap().is_built);
        // The build of the root is that of all.
        let builds =
            ("package.json", r#"{"workspaces": ["packages/*"], "scripts": {"build": "x"}}"#);
        assert!(!of(&[builds, api], None).unwrap().member.unwrap().is_built);
        let said = of(&[root, api, mail, lock], None).unwrap_err().to_string();
        assert!(
            said.contains("--as packages/api") && said.contains("--as packages/mail"),
            "{said}"
        );
        let found = of(&[root, api, mail, ("pnpm-lock.yaml", "")], Some("packages/api")).unwrap();
        assert_eq!(found.web, Some(Web::Command("pnpm --silent --filter @shop/api start".into())));
        // A server of the root goes first, and the member can be asked for.
        let server = ("server.js", "");
        assert_eq!(of(&[root, api, server], None).unwrap().choice, "node");
        assert_eq!(of(&[root, api, server], Some("packages/api")).unwrap().choice, "packages/api");
    }
}

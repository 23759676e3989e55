//! Fetching a commit of a git repository, for a package that a requirement names.

use std::path::Path;
use std::process::Command;

use mfserv_core::{Diagnostic, Kind};

use super::origin::Git;
use crate::progress::Progress;
use crate::python::{Toolbox, clean, on_path};

/// Clones a repository into a directory, at what the requirement means, with its submodules.
/// Returns the commit. Nobody is asked for a password; keys of the ssh agent and credential
/// helpers of git work.
pub(super) fn checkout(
    git: &Git,
    url: &str,
    into: &Path,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let program = on_path("git").ok_or_else(|| {
        Diagnostic::error("git is not there")
            .because(format!("a requirement of the plugin comes from {}", git.written))
            .help("apt-get install git")
    })?;
    let what = format!("fetching {}", git.written);
    let mut run = |dir: Option<&Path>, words: &[&str]| {
        let mut command = clean(&program);
        restrict(&mut command, url);
        if let Some(dir) = dir {
            command.arg("-C").arg(dir);
        }
        command.args(["-c", "core.askPass=true", "-c", "advice.detachedHead=false"]);
        command.args(words);
        toolbox.run(&what, command, progress).map_err(|error| {
            let help =
                "git must reach it without a question: try `git ls-remote` with this address";
            if error.help.is_none() && error.kind == Kind::Failed {
                error.help(help)
            } else {
                error
            }
        })
    };
    let place = into.to_string_lossy().into_owned();
    run(None, &["clone", "--quiet", "--no-checkout", "--", url, &place])?;
    let commit = match &git.reference {
        None => run(Some(into), &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?,
        Some(name) => {
            let forms = ["refs/tags/", "refs/remotes/origin/", ""];
            let known = forms.iter().find_map(|form| {
                let wanted = format!("{form}{name}^{{commit}}");
                run(Some(into), &["rev-parse", "--verify", "--quiet", &wanted]).ok()
            });
            match known {
                Some(commit) => commit,
                None => {
                    // What is neither a branch nor a tag: refs/pull/1/head.
                    run(Some(into), &["fetch", "--quiet", "origin", name])?;
                    run(Some(into), &["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"])?
                }
            }
        }
    };
    let commit = commit.trim().to_string();
    run(Some(into), &["checkout", "--quiet", "--detach", &commit])?;
    run(Some(into), &["submodule", "--quiet", "update", "--init", "--recursive"])?;
    Ok(commit)
}

/// The protocols that this address, its redirections and its submodules may use.
fn restrict(command: &mut Command, url: &str) {
    let allowed = match url.split("://").next().unwrap_or_default() {
        // Only this machine, or a repository of the plugin: see `origin`.
        scheme @ ("http" | "file") => format!("https:ssh:{scheme}"),
        _ => "https:ssh".into(),
    };
    command.env("GIT_ALLOW_PROTOCOL", allowed);
    if url.starts_with("http://") {
        command.args(["-c", "http.followRedirects=false"]);
    }
    if let Some(agent) = std::env::var_os("SSH_AUTH_SOCK") {
        command.env("SSH_AUTH_SOCK", agent);
    }
}

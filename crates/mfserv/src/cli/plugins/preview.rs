//! `mfserv info FILE`: what the installation of a package would do, for people.

use mfserv_core::{Diagnostic, Kind};

use crate::cli::report::{self, Colour, Outcome, paint};
use crate::cli::{print, print_json};
use mfserv_node::preview::{App, Command, Preview};
use mfserv_node::render;

/// Prints a preview. Exit code 0 when the package would be installed, else that of the
/// first reason for which it would not.
pub fn show(preview: Preview, json: bool) -> Result<Outcome, Diagnostic> {
    if json {
        print_json(&preview)?;
    } else {
        print(&text(&preview));
        preview.problems.iter().for_each(report::print_problem);
    }
    match preview.problems.iter().find(|problem| problem.is_error()) {
        Some(error) => Ok(Outcome::Code(error.kind.exit_code().max(Kind::Failed.exit_code()))),
        None => Ok(Outcome::Done),
    }
}

fn text(preview: &Preview) -> String {
    let mut out = identity(preview);
    out += &place(preview);
    for app in &preview.apps {
        out += &of_app(app);
    }
    for extra in &preview.extra_daemons {
        out += &format!("\nextra daemon {}\n", program(extra));
    }
    for job in &preview.jobs {
        out += &format!("\njob {job}\n");
    }
    if !preview.dependencies.is_empty() {
        let one = |one: &mfserv_node::preview::Dependency| match (one.installed, one.optional) {
            (true, _) => one.plugin.clone(),
            (false, true) => format!("{} (not installed, and optional)", one.plugin),
            (false, false) => format!("{} (not installed)", one.plugin),
        };
        let all: Vec<String> = preview.dependencies.iter().map(one).collect();
        out += &format!("\ndepends on the plugins {}\n", all.join(", "));
    }
    if let Some(address) = &preview.served_at {
        out += &format!("\nrequests come in at {address}\n");
    }
    if !preview.ports.is_empty() {
        let ports: Vec<String> = preview.ports.iter().map(u16::to_string).collect();
        out += &format!("its commands name the ports {}\n", ports.join(", "));
    }
    for danger in &preview.dangers {
        let text = danger.trim_start_matches("WARNING: ");
        out += &format!("{} {text}\n", paint("danger:", Colour::Doubtful));
    }
    out
}

/// Who it says it is, and how large it is.
fn identity(preview: &Preview) -> String {
    let said = &preview.package;
    let title = format!("{} {}, release {}", preview.name, said.version, said.release);
    let mut out = format!("{}\n", paint(&title, Colour::Title));
    for (name, value) in [
        ("summary", &said.summary),
        ("license", &said.license),
        ("maintainer", &said.packager),
        ("vendor", &said.vendor),
        ("url", &said.url),
    ] {
        if !value.is_empty() {
            out += &format!("  {name:<11} {value}\n");
        }
    }
    let builder = preview.builder.as_deref().unwrap_or("MFSERV (MetWork)");
    let with = preview.interpreters.iter().map(|(name, version)| format!("{name} {version}"));
    let with: Vec<String> = with.collect();
    let with = if with.is_empty() { String::new() } else { format!(", {}", with.join(", ")) };
    out += &format!("  {:<11} {builder}{with}\n", "made by");
    let sizes = &preview.sizes;
    let free =
        sizes.free_bytes.map_or_else(String::new, |free| format!(", {} free", render::bytes(free)));
    out += &format!(
        "  {:<11} {} packed, {} unpacked in {} files{free}\n",
        "size",
        render::bytes(sizes.packed_bytes),
        render::bytes(sizes.unpacked_bytes),
        sizes.files,
    );
    out
}

/// What becomes of the store.
fn place(preview: &Preview) -> String {
    let mut out =
        format!("\nwould become release {} in {}\n", preview.number, preview.dir.display());
    if let Some(there) = &preview.replaces {
        let dir = there.dir.display();
        out += &format!("  instead of {}, release {} ({dir})\n", there.version, there.release);
    }
    if !preview.removes.is_empty() {
        let numbers: Vec<String> = preview.removes.iter().map(u32::to_string).collect();
        out += &format!("  and remove the old releases {}\n", numbers.join(", "));
    }
    if preview.postinstall {
        out += "  and run its program postinstall\n";
    }
    for path in &preview.persistent_paths {
        out += &format!("  and keep {} in var/data/{}\n", path.display(), preview.name);
    }
    out
}

fn of_app(app: &App) -> String {
    let mut out = match app.command.workers {
        0 => format!("\napp {}: files only\n", app.command.name),
        _ => format!("\napp {}\n", program(&app.command)),
    };
    for route in &app.routes {
        out += &format!("  {route}\n");
    }
    for (prefix, dir) in &app.files {
        out += &format!("  {prefix}: the files of {}\n", dir.display());
    }
    out
}

fn program(command: &Command) -> String {
    let s = if command.workers == 1 { "" } else { "s" };
    format!("{}: {} worker{s} of `{}`", command.name, command.workers, command.command)
}

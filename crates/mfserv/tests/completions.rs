//! Completions in the real shells, and manual pages.

use std::process::Command;

use mfserv_testkit::{Node, Plugin};

use crate::{PROGRAM, Turn, node};

/// Types into a shell on a terminal, as a person does. Arguments: what the shell does
/// first, the shell's command; each line of standard input is a command line that ends where Tab is pressed.
/// What it has become is read by putting `echo` before it.
const TYPIST: &str = r#"
import os, pty, re, select, sys, time
first, shell = sys.argv[1], sys.argv[2:]
lines = sys.stdin.read().splitlines()
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="ready> ", PROMPT="ready> ", HISTFILE="")
    os.execvp(shell[0], shell)

def read_until(wanted):
    text, end = "", time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                text += os.read(terminal, 65536).decode("utf-8", "replace")
            except OSError:
                break
        found = re.search(wanted, text)
        if found:
            return found
    sys.exit("never: %s in %r" % (wanted, text))

def say(keys):
    os.write(terminal, keys.encode())

say(first + "; echo it''begins\n")
read_until("itbegins")
for line in lines:
    # what Tab makes is there before the keys after it are read
    say(line + "\t\x01echo :\x05:; echo it''ends\n")
    print(read_until(r"[\r\n]:(.*?) ?:\r?\n(?s:.*)itends").group(1))
os.close(terminal)
"#;

/// What command lines become when Tab is pressed at their end.
fn completed(node: &Node, shell: &[&str], first: &str, lines: &[&str]) -> Vec<String> {
    let mut command = Command::new("python3");
    command.args(["-c", TYPIST, first]).args(shell).current_dir(node.home());
    command.env("MFMODULE_RUNTIME_HOME", node.home()).env("MFSERV_SITE_DIR", node.path("site"));
    command.env("HOME", node.home()).env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut typist = command.spawn().unwrap();
    let mut input = typist.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, lines.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = typist.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell:?}: {said}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("not tested: {program} is not installed");
    }
    there
}

/// A home with two plugins and a package.
fn home() -> Node {
    let node = node();
    let app = "python3 x {unix_socket_path}";
    node.add(&Plugin::new("weather").app("main", app).app("maps", app));
    node.add(&Plugin::new("harbour").app("tides", app));
    std::fs::write(node.path("weather-1.0.0-1.metwork.mfserv.plugin"), "").unwrap();
    std::fs::create_dir(node.path("work")).unwrap();
    node
}

/// What is typed, and what it becomes.
const LINES: &[(&str, &str)] = &[
    ("mfserv uninst", "mfserv uninstall"),
    ("mfserv uninstall wea", "mfserv uninstall weather"),
    ("mfserv rollback har", "mfserv rollback harbour"),
    ("mfserv restart weather.map", "mfserv restart weather.maps"),
    ("mfserv scale harbour.t", "mfserv scale harbour.tides"),
    ("mfserv new --template python3_dj", "mfserv new --template python3_django"),
    ("mfserv install wea", "mfserv install weather-1.0.0-1.metwork.mfserv.plugin"),
    ("mfserv status --js", "mfserv status --json"),
    ("mfserv status --wa", "mfserv status --watch"),
    ("mfserv shell weather.map", "mfserv shell weather.maps"),
    ("mfserv run harbour.t", "mfserv run harbour.tides"),
    ("mfserv open harbour.t", "mfserv open harbour.tides"),
    ("mfserv stop weather.map", "mfserv stop weather.maps"),
    ("mfserv env harbour.t", "mfserv env harbour.tides"),
    ("mfserv release --stand", "mfserv release --standalone"),
];

fn completes(shell: &[&str], source: &str) {
    let _turn = Turn::cheap();
    if !has(shell[0]) {
        return;
    }
    let node = home();
    let script = node.mfserv(&["completions", shell[0]]).code(0).stdout;
    std::fs::write(node.path("script"), script).unwrap();
    let typed: Vec<&str> = LINES.iter().map(|(typed, _)| *typed).collect();
    let became =
        completed(&node, shell, &format!("{source} {}", node.path("script").display()), &typed);
    let wanted: Vec<&str> = LINES.iter().map(|(_, wanted)| *wanted).collect();
    assert_eq!(became, wanted);
}

#[test]
fn tab_completes_commands_plugins_apps_templates_and_packages_in_bash() {
    completes(&["bash", "--norc", "--noprofile", "-i"], "source");
}

#[test]
fn tab_completes_commands_plugins_apps_templates_and_packages_in_zsh() {
    completes(
        &["zsh", "-f", "-i"],
        "unsetopt prompt_cr; autoload -U compinit; compinit -u -D; source",
    );
}

#[test]
fn tab_completes_commands_plugins_apps_templates_and_packages_in_fish() {
    let _turn = Turn::cheap();
    if !has("fish") {
        return;
    }
    let node = home();
    let script = node.mfserv(&["completions", "fish"]).code(0).stdout;
    std::fs::write(node.path("script.fish"), script).unwrap();
    for (typed, wanted) in LINES {
        let mut command = Command::new("fish");
        let ask = format!("source script.fish; complete --do-complete '{typed}'");
        command.args(["--no-config", "-c", &ask]).current_dir(node.home());
        command.env("MFMODULE_RUNTIME_HOME", node.home()).env("HOME", node.home());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = said.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [wanted.rsplit(' ').next().unwrap()], "{typed}: {output:?}");
    }
}

#[test]
fn the_home_of_the_line_that_is_typed_is_the_one_that_is_looked_at() {
    let _turn = Turn::cheap();
    let (node, other) = (home(), node());
    other.add(&Plugin::new("elsewhere"));
    let mut command = node.command(&["--", "mfserv", "--home"]);
    command.arg(other.home()).args(["uninstall", ""]);
    command.env("_MFSERV_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "4");
    command.env("_CLAP_IFS", "\n");
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(said.contains("elsewhere") && !said.contains("weather"), "{said}");
}

#[test]
fn a_mistyped_command_is_answered_with_a_command_for_people() {
    let _turn = Turn::cheap();
    for typed in ["fron", "deamon", "kep"] {
        let output = Command::new(PROGRAM).arg(typed).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        for role in ["'front'", "'daemon'", "'keep'"] {
            assert!(!said.contains(role), "{said}");
        }
    }
    for (typed, meant) in [
        (&["env", "shop", "KEY=secret"][..], "`mfserv env set shop KEY=VALUE`"),
        (&["console", "shop"], "`mfserv shell APP`"),
        (&["browse", "shop"], "`mfserv open APP`"),
    ] {
        let output = Command::new(PROGRAM).args(typed).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{typed:?}");
        assert!(said.contains(meant) && !said.contains("secret"), "{said}");
    }
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("keep  "), "{help:?}");
}

#[test]
fn every_command_has_a_manual_page_that_is_formatted_without_a_warning() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("man1");
    node.mfserv(&["man", &dir.to_string_lossy()]).code(0);
    let pages: Vec<_> =
        std::fs::read_dir(&dir).unwrap().flatten().map(|page| page.path()).collect();
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let names: Vec<String> = pages.iter().map(name).collect();
    for wanted in ["mfserv.1", "mfserv-install.1", "mfserv-config-set.1"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
    }
    assert!(
        !names.iter().any(|name| name.contains("help") || name.contains("daemon")),
        "{names:?}"
    );
    let first = node.mfserv(&["man"]).code(0).stdout;
    assert!(
        first.contains(r#".SH "EXIT STATUS""#) && first.contains("mfserv\\-install(1)"),
        "{first}"
    );
    if has("groff") {
        for page in &pages {
            let mut command = Command::new("groff");
            let output = command.args(["-man", "-ww", "-z", "-Tutf8"]).arg(page).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }
}

#[test]
fn the_help_is_in_groups_and_that_of_each_command_has_an_example() {
    let _turn = Turn::cheap();
    let node = node();
    let long = node.mfserv(&["--help"]).code(0).stdout;
    for title in ["Write an app:", "Deploy it:", "Work with one app:", "Look:", "Run the node:"] {
        assert!(long.contains(&format!("\n{title}\n")), "{title}: {long}");
    }
    assert_eq!(node.mfserv(&["help"]).code(0).stdout, long);
    let short = node.mfserv(&["-h"]).code(0).stdout;
    assert!(short.lines().count() < 30 && short.contains("mfserv COMMAND --help"), "{short}");
    let commands = long.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = commands.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let names: Vec<&str> = commands.filter_map(|line| line.split("  ").next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.contains(' ')).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let said = node.mfserv(&[name, "--help"]).code(0).stdout;
        assert!(said.contains("Example") && said.contains(&format!("  mfserv {name}")), "{said}");
    }
}

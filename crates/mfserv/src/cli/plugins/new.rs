//! `mfserv new`: a plugin from a template.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::keys::FRONT_KIND;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::configure;
use mfserv_node::places::Places;
use mfserv_plugin::templates::{self, Answers, QUESTIONS};

use crate::cli::completions;
use crate::cli::print;
use crate::cli::report::Outcome;

#[derive(Debug, Args)]
pub struct New {
    /// The plugin's name.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// The template.
    #[arg(long, short, default_value = "default", add = ArgValueCompleter::new(completions::templates))]
    template: String,
    /// Ask nothing and take the defaults.
    #[arg(long)]
    no_input: bool,
    /// List the templates.
    #[arg(long)]
    list: bool,
}

impl New {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if self.list {
            for template in templates::list() {
                print(&format!("{:<20} {}\n", template.name, template.summary));
            }
            return Ok(Outcome::Done);
        }
        check_front(places, &self.template)?;
        let name = self.name.unwrap_or_default();
        let mut answers = Answers::default();
        if !self.no_input && std::io::stdin().is_terminal() {
            ask_questions(&mut answers)?;
        }
        let dir = templates::create(&self.template, &name, &answers, Path::new("."))?;
        let dir = dir.canonicalize().unwrap_or(dir);
        print(&format!(
            "plugin {name} is made in {}\nnext: `mfserv dev {name}` runs it from there\n",
            dir.display()
        ));
        Ok(Outcome::Done)
    }
}

/// Refuses a template that the front of this node cannot serve.
pub fn check_front(places: &Places, template: &str) -> Result<(), Diagnostic> {
    if !templates::find(template).is_some_and(|template| template.needs_nginx) {
        return Ok(());
    }
    let kind = configure::module(places, &[])?.resolution.config.get(FRONT_KIND);
    if kind == "nginx" {
        return Ok(());
    }
    Err(Diagnostic::error(format!("a plugin of the template {template} would answer nothing here"))
        .kind(Kind::Refused)
        .because(format!("it is Lua for nginx, and the front of this node is {kind}"))
        .help(format!(
            "set [front] kind=nginx in {} (docs/nginx.md says what it needs), or take another template",
            places.config_file().display()
        )))
}

/// Asks the questions of a template on the terminal.
pub fn ask_questions(answers: &mut Answers) -> Result<(), Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::error("the question cannot be asked").because(e);
    for question in QUESTIONS {
        loop {
            for (index, choice) in question.choices.iter().enumerate() {
                print(&format!("  {}. {choice}\n", index + 1));
            }
            print(&format!("{} [{}]: ", question.key, question.default));
            std::io::stdout().flush().map_err(failed)?;
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
            match answers.set(question.key, line.trim()) {
                Ok(()) => break,
                Err(why) => print(&format!("{why}\n")),
            }
        }
    }
    Ok(())
}

//! `_redirects`: the rules of a static site, in the form of Netlify and Cloudflare Pages.
//!
//! Text in, answers out. What is understood is a subset of theirs: paths with `:placeholders` and a `*`
//! at the end, redirects, rewrites to files of the site (200) and pages for 404.

mod line;
mod target;

use target::{Kind, Target};

/// The name of the file, at the root of the site.
pub const FILE: &str = "_redirects";
/// The most rules (2,000 static ones are what Cloudflare Pages takes).
pub const RULES_MAX: usize = 2000;
/// The longest line, bytes.
pub const LINE_MAX: usize = 1000;
/// So much of a file is obeyed, bytes (who reads one byte more has this said): as many of the longest lines as there may be rules.
pub const FILE_MAX: usize = RULES_MAX * (LINE_MAX + 1);

/// The rules of a site, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirects {
    rules: Vec<Rule>,
}

/// A line that is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its number, from 1 on.
    pub line: u32,
    /// Why.
    pub reason: String,
    /// What to do.
    pub help: &'static str,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The client is sent somewhere else.
    Redirect {
        /// The status: 301, 302, 303, 307 or 308.
        status: u16,
        /// The Location: a path, or a URL of another site that the file names.
        location: String,
    },
    /// A file of the site answers with 200, below the root and without a `/` at its beginning.
    Rewrite(String),
    /// The same with 404.
    NotFound(String),
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Also where there is a file (`301!`).
    pub is_forced: bool,
    /// What to do.
    pub action: Action,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    from: Vec<Segment>,
    /// It ends with `/*`.
    has_splat: bool,
    to: Target,
    status: u16,
    is_forced: bool,
}

/// One part of the path of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(String),
    /// `:name`.
    Named(String),
}

/// A path as it was asked for, below the site.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The normalised path up to the site, without a `/` at its end: what the route has matched.
    pub prefix: &'a str,
    /// The rest.
    pub rest: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a [u8]>,
}

impl Redirects {
    /// Reads a file. A line that is wrong is left out and named; the others are obeyed.
    pub fn parse(text: &[u8]) -> (Self, Vec<Problem>) {
        let (text, is_cut) = within_max(text);
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let mut problem =
                |(reason, help)| problems.push(Problem { line: number, reason, help });
            match line::read(line.trim_ascii()) {
                Ok(None) => {}
                Ok(Some(_)) if rules.len() == RULES_MAX => {
                    let reason = format!("there are more than {RULES_MAX} rules");
                    problem((reason, "write one rule with * or :placeholders for several paths"));
                    break;
                }
                Ok(Some(rule)) => rules.push(rule),
                Err(wrong) => problem(wrong),
            }
        }
        if is_cut {
            let line = u32::try_from(text.split(|&byte| byte == b'\n').count()).unwrap_or(u32::MAX);
            let reason = format!("the file is longer than {FILE_MAX} bytes: the rest is not read");
            problems.push(Problem { line, reason, help: "shorten the file" });
        }
        (Self { rules }, problems)
    }

    /// True if there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the first rule that takes this path does. A rule that leads to the path itself takes none.
    pub fn find(&self, asked: Asked<'_>) -> Option<Found> {
        let segments: Vec<&str> = asked.rest.split('/').filter(|one| !one.is_empty()).collect();
        self.rules.iter().find_map(|rule| {
            let values = rule.values(&segments)?;
            let action = match rule.to.kind {
                Kind::File if rule.status == 404 => Action::NotFound(rule.to.file(&values)),
                Kind::File => Action::Rewrite(rule.to.file(&values)),
                Kind::Path | Kind::Url => Action::Redirect {
                    status: rule.status,
                    location: rule.to.location(&values, &asked).filter(|to| {
                        rule.to.kind == Kind::Url || !target::is_same_path(to, &asked)
                    })?,
                },
            };
            Some(Found { is_forced: rule.is_forced, action })
        })
    }
}

/// The whole lines of a file up to [`FILE_MAX`], and whether more follows.
fn within_max(text: &[u8]) -> (&[u8], bool) {
    let Some(text) = text.get(..=FILE_MAX) else { return (text, false) };
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    (&text[..end.min(FILE_MAX)], true)
}

/// What placeholders stand for in one path.
struct Values<'a> {
    named: Vec<(&'a str, &'a str)>,
    splat: String,
}

impl Rule {
    /// What its placeholders stand for in this path, if it takes it.
    fn values<'a>(&'a self, path: &[&'a str]) -> Option<Values<'a>> {
        let length = self.from.len();
        if path.len() < length || (path.len() > length && !self.has_splat) {
            return None;
        }
        let pairs = || self.from.iter().zip(path);
        let fits = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Text(text) => text == part,
            Segment::Named(_) => true,
        };
        // Most rules of a long file do not fit: nothing is allocated for them.
        if !pairs().all(fits) {
            return None;
        }
        let named = pairs().filter_map(|(segment, part)| match segment {
            Segment::Named(name) => Some((name.as_str(), *part)),
            Segment::Text(_) => None,
        });
        Some(Values { named: named.collect(), splat: path[length..].join("/") })
    }
}

#[cfg(test)]
mod tests;

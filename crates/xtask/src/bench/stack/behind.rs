//! mfserv with `[front] kind=nginx`: the same plugins in a second node, whose clients nginx takes
//! and passes on to the front behind it. The row says what that hop costs.

use std::path::Path;

use mfserv_core::Diagnostic;

use super::Invited;
use super::kit::Kit;
use super::own::Own;
use super::row::Row;
use crate::interrupt;

/// How it is called in the report.
const TITLE: &str = "mfserv, [front] kind=nginx";
/// The hop is the same for every app: an app that does nothing, one that does something, and one
/// that gets its requests over HTTP say enough of it.
const ROWS: [Row; 3] = [Row::Raw, Row::Flask, Row::Node];

/// The node behind nginx, or why there is none.
pub struct Behind {
    own: Result<Own, String>,
}

impl Behind {
    /// Makes and builds the plugins once more. `None` if no such row is asked for.
    pub fn install(program: &Path, rows: &[Row], kit: &Kit) -> Result<Option<Self>, Diagnostic> {
        let rows: Vec<Row> = rows.iter().copied().filter(|row| ROWS.contains(row)).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let own = Own::behind_nginx(program, &rows, &kit.nginx, TITLE);
        interrupt::check()?;
        Ok(Some(Self { own: own.map_err(|why| said(&why)) }))
    }

    /// Runs a row with so many workers, if it is one of its rows. What is returned ends with the
    /// next call.
    pub fn run(&self, row: Row, workers: u32) -> Result<Option<Invited>, Diagnostic> {
        let own = self.own.as_ref().map_err(String::clone);
        if !ROWS.contains(&row) {
            own.map_or(Ok(()), Own::stop)?;
            return Ok(None);
        }
        let ran = own.and_then(|own| own.run(row, workers).map_err(|why| said(&why)));
        interrupt::check()?;
        let one = ran.and_then(|mut all| all.pop().ok_or_else(|| "it has no such app".into()));
        Ok(Some((TITLE.into(), one)))
    }
}

/// What goes into the report, where the row would stand.
fn said(why: &Diagnostic) -> String {
    eprintln!("NOT MEASURED: {TITLE}: {why}");
    why.to_string()
}

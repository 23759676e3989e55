//! Tracebacks as their author reads them: the frames of libraries are counted and not shown.

use std::collections::BTreeSet;

/// Folds the frames of libraries in the lines of one log. The log itself has all of them.
#[derive(Debug, Default)]
pub struct Frames {
    /// The frames that are not shown, before the next line that is.
    hidden: usize,
    /// Whose they are.
    of: BTreeSet<String>,
    /// The lines of a frame that is not shown are indented deeper than this.
    inside: Option<usize>,
}

impl Frames {
    /// What is shown of this line: nothing if it belongs to a frame of a library; itself, behind a
    /// line that says how many were left out.
    pub fn take(&mut self, line: &str) -> Vec<String> {
        let indent = line.len() - line.trim_start().len();
        if let Some(library) = library(line) {
            self.hidden += 1;
            self.of.insert(library);
            self.inside = Some(indent);
            return Vec::new();
        }
        // The code of a frame follows it, and marks below the code.
        if self.inside.is_some_and(|frame| indent > frame && !is_frame(line)) {
            return Vec::new();
        }
        let left_out = self.left_out();
        left_out.into_iter().chain([line.to_owned()]).collect()
    }

    fn left_out(&mut self) -> Option<String> {
        let indent = self.inside.take()?;
        let count = std::mem::take(&mut self.hidden);
        let of = Vec::from_iter(std::mem::take(&mut self.of)).join(", ");
        let frames = if count == 1 { "frame" } else { "frames" };
        Some(format!("{:indent$}… {count} {frames} of {of}", ""))
    }
}

/// A text with the frames of libraries folded.
pub fn folded(text: &str) -> String {
    let mut frames = Frames::default();
    text.lines().flat_map(|line| frames.take(line)).map(|line| line + "\n").collect()
}

fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("File \"") || line.starts_with("at ")
}

/// Whose frame this line begins, if it is that of a library: of CPython's traceback
/// (`File "PATH", line N, in NAME`) or of V8's (`at NAME (PATH:LINE:COLUMN)`).
fn library(line: &str) -> Option<String> {
    let frame = line.strip_prefix("  ")?.trim_start();
    if let Some(rest) = frame.strip_prefix("File \"") {
        let (path, rest) = rest.split_once('"')?;
        return rest.starts_with(", line ").then(|| of_python(path)).flatten();
    }
    let place = frame.strip_prefix("at ")?;
    let path = place.rsplit_once('(').map_or(place, |(_, path)| path);
    let path = path.strip_prefix("file://").unwrap_or(path);
    if path.starts_with("node:") {
        return Some("Node".into());
    }
    let (_, below) = path.rsplit_once("/node_modules/")?;
    let parts = if below.starts_with('@') { 2 } else { 1 };
    Some(below.split('/').take(parts).collect::<Vec<_>>().join("/"))
}

fn of_python(path: &str) -> Option<String> {
    if let Some((_, below)) = path.rsplit_once("/site-packages/") {
        let name = below.split('/').next().unwrap_or(below);
        let name = name.strip_suffix(".py").unwrap_or(name);
        return Some(if name.starts_with("mfserv") { "mfserv".into() } else { name.into() });
    }
    let is_of_the_standard_library = path.starts_with("<frozen ") || path.contains("/lib/python3.");
    is_of_the_standard_library.then(|| "Python".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_libraries_are_counted_and_those_of_the_app_are_shown() {
        let text = r#"Traceback (most recent call last):
  File "/h/local/lib/python3.11/site-packages/flask/app.py", line 1511, in wsgi_app
    response = self.full_dispatch_request()
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/h/local/lib/python3.11/site-packages/werkzeug/x.py", line 1, in y
    return z()
  File "/srv/shop/app.py", line 9, in boom
    raise ValueError("no")
ValueError: no
"#;
        let expected = r#"Traceback (most recent call last):
  … 2 frames of flask, werkzeug
  File "/srv/shop/app.py", line 9, in boom
    raise ValueError("no")
ValueError: no
"#;
        assert_eq!(folded(text), expected);
    }

    #[test]
    fn a_failed_import_and_an_error_of_node_are_as_short() {
        let import = r#"Traceback (most recent call last):
  File "/b/lib/python3.11/site-packages/mfserv_wsgi.py", line 3, in load
    module = importlib.import_module(name)
  File "/usr/lib/python3.11/importlib/__init__.py", line 126, in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import
ModuleNotFoundError: No module named 'x'
"#;
        let expected = "Traceback (most recent call last):\n  … 3 frames of Python, mfserv\n\
                        ModuleNotFoundError: No module named 'x'\n";
        assert_eq!(folded(import), expected);
        let node = "Error: no\n    at shop (/srv/shop/server.js:3:9)\n    at Layer.handle \
                    (/srv/shop/node_modules/express/lib/layer.js:95:5)\n    at /srv/node_modules/\
                    @scope/one/x.js:1:2\n    at node:internal/main:12:3\n\nlater\n";
        let expected = "Error: no\n    at shop (/srv/shop/server.js:3:9)\n    … 3 frames of \
                        @scope/one, Node, express\n\nlater\n";
        assert_eq!(folded(node), expected);
    }

    #[test]
    fn lines_that_are_no_frames_are_left_alone() {
        for line in ["at noon", "  File it", "File \"/x/site-packages/y.py\", line 3, in z", "  at"]
        {
            assert_eq!(folded(line), format!("{line}\n"));
        }
    }
}

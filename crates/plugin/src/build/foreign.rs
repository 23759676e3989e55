//! Files of other tools that name or lock packages. They are not read, and that is said: the
//! versions that are installed are not those that they lock.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;

/// What is not read, and the tool that it is of.
const PYTHON: &[(&str, &str)] = &[
    ("poetry.lock", "Poetry"),
    ("uv.lock", "uv"),
    ("pdm.lock", "PDM"),
    ("pylock.toml", "pip"),
    ("Pipfile.lock", "Pipenv"),
    ("Pipfile", "Pipenv"),
    ("conda-lock.yml", "conda"),
    ("environment.yml", "conda"),
    ("requirements.txt", "pip"),
];
const NODE: &[(&str, &str)] = &[
    ("yarn.lock", "Yarn"),
    ("pnpm-lock.yaml", "pnpm"),
    ("bun.lock", "Bun"),
    ("bun.lockb", "Bun"),
    ("deno.lock", "Deno"),
];
/// Where lists of Python packages may be.
const SOURCES: &str = "python3_virtualenv_sources";

/// Says which of these files are in the plugin. `inputs` are the files that a build reads.
pub(super) fn ignored(dir: &Path, inputs: &[PathBuf]) -> Vec<Diagnostic> {
    let python = [dir.to_owned(), dir.join(SOURCES)];
    let python = there(&python, PYTHON, inputs).map(|(file, tool)| {
        said(dir, &file, tool).help(
            "write what it asks for into python3_virtualenv_sources/requirements-to-freeze.txt \
             (or `-r ../FILE` for a list of pip), exact versions into requirements3.txt beside it. \
             uv.lock, poetry.lock, Pipfile.lock and pyproject.toml in the plugin's directory are \
             used, in this order, where these two name no package",
        )
    });
    let node = [dir.to_owned()];
    let node = there(&node, NODE, inputs).map(|(file, tool)| {
        said(dir, &file, tool).help(
            "packages are installed with npm, which locks them in package-lock.json: commit that, \
             and look whether its versions are the ones you want",
        )
    });
    python.chain(node).collect()
}

fn there<'a>(
    dirs: &'a [PathBuf],
    files: &'static [(&str, &str)],
    inputs: &'a [PathBuf],
) -> impl Iterator<Item = (PathBuf, &'static str)> + 'a {
    let all =
        dirs.iter().flat_map(|dir| files.iter().map(move |(name, tool)| (dir.join(name), *tool)));
    all.filter(|(file, _)| file.is_file() && !inputs.contains(file))
}

fn said(dir: &Path, file: &Path, tool: &str) -> Diagnostic {
    let name = file.strip_prefix(dir).unwrap_or(file);
    Diagnostic::warning(format!("{} is not read", name.display()))
        .because(format!("it is a file of {tool}, and mfserv takes packages from its own lists"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_of_another_tool_is_said_and_one_that_is_read_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(ignored(dir, &[]).is_empty());
        std::fs::create_dir(dir.join(SOURCES)).unwrap();
        let names = [
            "yarn.lock",
            "pnpm-lock.yaml",
            "poetry.lock",
            "uv.lock",
            "Pipfile",
            "requirements.txt",
        ];
        for name in names {
            std::fs::write(dir.join(name), "").unwrap();
        }
        std::fs::write(dir.join(SOURCES).join("Pipfile.lock"), "").unwrap();
        let told = ignored(dir, &[]);
        let whats: Vec<String> = told.iter().map(|one| one.what.clone()).collect();
        assert_eq!(told.len(), names.len() + 1);
        for name in names.into_iter().chain(["python3_virtualenv_sources/Pipfile.lock"]) {
            assert!(whats.contains(&format!("{name} is not read")), "{whats:?}");
        }
        let read = [dir.join("requirements.txt")];
        assert_eq!(ignored(dir, &read).len(), names.len());
    }
}

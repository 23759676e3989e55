use super::*;

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn what_is_served_as_it_is_counts_also_where_git_ignores_it_and_builds_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("dist");
    write(folder.path(), ".gitignore", "dist\n");
    write(&dir, "index.html", "one");
    let (mut sources, mut served) = (Sources::of(folder.path(), None), Sources::served(&dir));
    write(&dir, "index.html", "second");
    write(&dir, "dist/app.js", "1");
    assert_eq!(sources.changed(), Vec::<PathBuf>::new());
    assert_eq!(served.changed(), [Path::new("dist/app.js"), Path::new("index.html")]);
}

#[test]
fn sources_are_what_people_edit_and_neither_packages_nor_what_tools_and_builds_write() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap();
    write(&dir, ".gitignore", "/generated\n.env\n");
    write(&dir, "env/pyvenv.cfg", "");
    let mut sources = Sources::of(&dir, Some("public/site"));
    let edited = [
        "src/a.ts",
        "index.html",
        ".env",
        ".env.local",
        "src/build/b.ts",
        "package.json",
        "assets/x.css",
        "src/log/index.ts",
    ];
    let others = [
        "node_modules/x/index.js",
        "packages/y/node_modules/x.js",
        "dist/a.js",
        "build/a.js",
        "public/site/a.js",
        "generated/a.ts",
        ".git/index",
        "src/.a.ts.swp",
        "src/a.ts~",
        "env/lib/x.py",
        ".vscode/settings.json",
        ".next/x",
        "server.log",
        "data/app.sqlite3-wal",
        "app.db",
        "logs/today.txt",
        "uploads/cat.png",
    ];
    edited.iter().chain(&others).for_each(|file| write(&dir, file, "1"));
    let mut wanted: Vec<PathBuf> = edited.iter().map(PathBuf::from).collect();
    wanted.sort();
    assert_eq!(sources.changed(), wanted);
    assert_eq!(sources.changed(), [] as [PathBuf; 0]);
    std::fs::remove_file(dir.join("src/a.ts")).unwrap();
    write(&dir, "index.html", "22");
    assert_eq!(sources.changed(), ["index.html", "src/a.ts"].map(PathBuf::from));
}

fn sources_with(files: &[&str]) -> (tempfile::TempDir, PathBuf, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap();
    files.iter().for_each(|file| write(&dir, file, "1"));
    let sources = Sources::of(&dir, None);
    (folder, dir, sources)
}

const NOTHING: [PathBuf; 0] = [];

#[test]
fn what_is_saved_during_a_build_counts_each_time() {
    let (_folder, dir, mut sources) = sources_with(&["server.src.js"]);
    for text in ["22", "333", "4444"] {
        write(&dir, "server.src.js", text);
        assert_eq!(sources.changed_meanwhile(true), [PathBuf::from("server.src.js")]);
    }
    std::fs::remove_file(dir.join("server.src.js")).unwrap();
    assert_eq!(sources.changed_meanwhile(true), [PathBuf::from("server.src.js")]);
}

#[test]
fn what_a_build_writes_with_the_same_content_counts_neither_then_nor_in_the_next_build() {
    let (_folder, dir, mut sources) = sources_with(&["lib/a.js"]);
    let again = |text: &str| {
        std::fs::remove_file(dir.join("lib/a.js")).unwrap();
        write(&dir, "lib/a.js", text);
    };
    again("1");
    assert_eq!(sources.changed_meanwhile(true), NOTHING);
    again("2");
    assert_eq!(sources.changed_meanwhile(true), NOTHING);
    assert_eq!(sources.changed_meanwhile(true), NOTHING, "a build that writes nothing");
    again("3");
    assert_eq!(sources.changed_meanwhile(true), [PathBuf::from("lib/a.js")], "forgotten");
    again("4");
    assert_eq!(sources.changed(), [PathBuf::from("lib/a.js")], "an edit");
}

#[test]
fn what_comes_into_being_during_builds_under_new_names_is_theirs_until_it_is_edited() {
    let (_folder, dir, mut sources) = sources_with(&["a.js"]);
    write(&dir, "lib/chunk-1.js", "1");
    assert_eq!(sources.changed_meanwhile(true), NOTHING);
    assert_eq!(sources.changed_meanwhile(true), NOTHING);
    std::fs::remove_file(dir.join("lib/chunk-1.js")).unwrap();
    write(&dir, "lib/chunk-2.js", "1");
    assert_eq!(sources.changed_meanwhile(true), NOTHING);
    write(&dir, "lib/chunk-2.js", "edited");
    assert_eq!(sources.changed(), [PathBuf::from("lib/chunk-2.js")]);
    write(&dir, "lib/chunk-2.js", "edited again");
    assert_eq!(sources.changed_meanwhile(true), [PathBuf::from("lib/chunk-2.js")]);
}

use super::super::{Owner, claim};
use super::*;

/// A home with these releases of `p`; the last one is current.
struct Played {
    home: Home,
    _folder: tempfile::TempDir,
}

impl Played {
    fn with(releases: &[u32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let played = Played { home: Home::new(folder.path()), _folder: folder };
        releases.iter().for_each(|number| played.install(*number));
        played
    }

    fn install(&self, number: u32) {
        // A claim sweeps what is not committed: it comes first.
        let claim = self.claim("installs");
        let dir = self.home.release("p", number);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.ini"), "").unwrap();
        claim.commit(number).unwrap();
    }

    /// The variables in force of a release.
    fn of(&self, number: u32) -> Variables {
        let dir = self.home.release("p", number);
        self.history().in_force(&self.home, "p", &dir, false).clone()
    }

    fn claim(&self, operation: &str) -> Claim {
        claim(&self.home, "p", &Owner::this_process(operation)).unwrap()
    }

    fn history(&self) -> History {
        History::read(&self.home, "p").unwrap()
    }
}

/// Variables with these values.
fn of(pairs: &[(&str, &str, bool)]) -> Variables {
    let variable = |value: &str, secret| Variable { value: value.into(), secret };
    pairs.iter().map(|(name, value, secret)| (name.to_string(), variable(value, *secret))).collect()
}

/// Stages and puts in force.
fn change(played: &Played, edit: Edit) {
    let claim = played.claim("changes");
    claim.stage_variables(edit, 1).unwrap();
    claim.commit_variables("changes").unwrap();
}

#[test]
fn a_file_that_a_killed_writer_has_left_empty_is_none_and_a_damaged_one_is_an_error() {
    let played = Played::with(&[1]);
    let file = played.home.variables_file("p");
    disk::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "").unwrap();
    assert_eq!(played.history(), History::default());
    std::fs::write(&file, "{").unwrap();
    History::read(&played.home, "p").unwrap_err();
}

#[test]
fn the_names_of_where_an_app_listens_are_mfservs_own() {
    for name in ["PORT", "HOST", "MFSERV_X", "PATH"] {
        let said = check_name(name).unwrap_err().to_string();
        assert!(said.contains(name) && said.contains("mfserv"), "{said}");
    }
    check_name("HOSTS").unwrap();
}

#[test]
fn what_a_killed_writer_has_left_beside_a_file_is_swept_at_a_start_and_at_an_uninstallation() {
    let played = Played::with(&[1]);
    let file = played.home.variables_file("p");
    disk::create_dir(file.parent().unwrap()).unwrap();
    // No process has a number as large as this.
    let left = file.with_file_name(".p.json.new.4999999.0");
    let other = file.with_file_name(".q.json.new.4999999.0");
    let leave = || [&left, &other].map(|path| std::fs::write(path, "hush").unwrap());
    leave();
    super::super::recover(&played.home);
    assert!(!left.exists() && !other.exists());
    leave();
    played.claim("uninstalls").keep_variables(true).unwrap();
    assert!(!left.exists() && other.exists());
}

#[test]
fn only_the_directories_of_a_plugin_have_its_variables_and_not_one_that_is_called_so() {
    let played = Played::with(&[1, 2]);
    change(&played, Edit::Set(of(&[("KEY", "hush", true)])));
    let has = |dir: &Path, is_tried| {
        played.history().in_force(&played.home, "p", dir, is_tried).contains_key("KEY")
    };
    let other = played.home.releases().with_file_name("elsewhere");
    std::fs::create_dir(&other).unwrap();
    assert!(has(&played.home.release("p", 2), false) && has(&played.home.link("p"), false));
    assert!(has(&played.home.release("p", 3), false), "one that is staged");
    assert!(!has(&other, false) && !has(&other.join("nowhere"), false));
    assert!(has(&other, true), "it is about to be linked");
    played.claim("uninstalls").unlink().unwrap();
    played.claim("uninstalls").keep_variables(false).unwrap();
    disk::relink(&played.home.link("p"), &other).unwrap();
    assert!(has(&other, false) && has(&played.home.link("p"), false), "it is linked");
}

#[test]
fn the_history_proves_which_operation_has_put_a_change_in_force() {
    let played = Played::with(&[1]);
    let set = || Edit::Set(of(&[("KEY", "1", false)]));
    let commit = |id: &str, edit: Edit| {
        let claim = played.claim(id);
        claim.stage_variables(edit, 1).unwrap();
        assert!(!played.history().was_put_in_force_by(id));
        claim.commit_variables(id).unwrap();
        assert!(played.history().was_put_in_force_by(id));
    };
    commit("first", set());
    commit("second", set());
    commit("undoes", Edit::Undo);
    assert!(played.history().was_put_in_force_by("first"));
    played.claim("never").stage_variables(set(), 1).unwrap();
    played.claim("never").give_up_variables("never").unwrap();
    assert!(!played.history().was_put_in_force_by("never"));
}

#[test]
fn a_rollback_that_dies_before_the_link_leaves_the_variables_of_the_current_release_in_force() {
    let played = Played::with(&[1]);
    let colour = |value: &str| of(&[("COLOUR", value, false)]);
    change(&played, Edit::Set(colour("green")));
    played.install(2);
    change(&played, Edit::Set(colour("blue")));
    // Only the link is left to be done, and is not.
    played.claim("dies").hand_over_variables(1).unwrap();
    assert_eq!((played.of(1), played.of(2)), (colour("green"), colour("blue")));
    assert_eq!(played.of(3), colour("blue"), "of the hook of a release that is staged");
    played.install(3);
    assert_eq!(played.of(3), colour("blue"));
    played.claim("goes back").commit(1).unwrap();
    assert_eq!(played.of(4), colour("green"));
    // What is in force is kept over an uninstallation, for the first release after it.
    played.claim("uninstalls").unlink().unwrap();
    played.claim("uninstalls").keep_variables(false).unwrap();
    let all = [1, 2, 3].map(|number| played.home.release("p", number));
    all.iter().for_each(|dir| disk::remove(dir).unwrap());
    played.install(1);
    assert_eq!(played.of(1), colour("green"));
    played.install(2);
    assert_eq!((played.of(1), played.of(2)), (colour("green"), colour("green")));
}

#[test]
fn a_release_from_before_the_first_change_has_none_of_it() {
    let played = Played::with(&[1, 2]);
    change(&played, Edit::Set(of(&[("COLOUR", "green", false)])));
    assert_eq!((played.of(1).len(), played.of(2).len()), (0, 1));
    played.claim("goes back").commit(1).unwrap();
    assert_eq!((played.of(1).len(), played.of(2).len()), (0, 1));
}

#[test]
fn what_is_secret_stays_so_when_a_change_is_undone_and_when_a_release_is_gone_back_to() {
    let played = Played::with(&[1]);
    let key = |value: &str, secret| of(&[("KEY", value, secret)]);
    change(&played, Edit::Set(key("open", false)));
    change(&played, Edit::Set(key("hush", true)));
    change(&played, Edit::Set(key("other", false)));
    assert_eq!(played.of(1), key("other", true), "it was secret");
    change(&played, Edit::Undo);
    change(&played, Edit::Undo);
    assert_eq!(played.of(1), key("open", true));
    change(&played, Edit::Unset(vec!["KEY".into()]));
    change(&played, Edit::Set(key("open", false)));
    played.install(2);
    change(&played, Edit::Set(key("hush", true)));
    assert_eq!(played.of(1), key("open", false));
    played.claim("goes back").commit(1).unwrap();
    assert_eq!(played.of(1), key("open", true));
}

#[test]
fn what_is_set_with_a_release_is_that_ones_alone_and_goes_with_it() {
    let played = Played::with(&[]);
    let next = |number: u32, set: &Variables| {
        let claim = played.claim("installs");
        let dir = played.home.release("p", number);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.ini"), "").unwrap();
        claim.set_with_release(number, set).unwrap();
        claim
    };
    // The first release, given up: nothing of it is left.
    let claim = next(1, &of(&[("A", "0", true)]));
    assert_eq!(played.of(1), of(&[("A", "0", true)]), "its hooks have it");
    claim.discard(1);
    drop(claim);
    assert!(!played.home.variables_file("p").exists());

    next(1, &of(&[("A", "1", true)])).commit(1).unwrap();
    // What is secret stays so; what is not said stays; the release before has what it had.
    next(2, &of(&[("A", "2", false), ("B", "2", false)])).commit(2).unwrap();
    assert_eq!(played.of(2), of(&[("A", "2", true), ("B", "2", false)]));
    assert_eq!(played.of(1), of(&[("A", "1", true)]));
    // A number that is taken again has nothing of what had it before.
    next(3, &of(&[("C", "3", false)])).commit(3).unwrap();
    played.claim("goes back").commit(2).unwrap();
    std::fs::remove_dir_all(played.home.release("p", 3)).unwrap();
    next(3, &Variables::new()).commit(3).unwrap();
    assert_eq!(played.of(3), played.of(2));
}

//! Whether a controller of cgroup v2 may reach the leaves of the node, and how it does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::write;
use crate::containment;

/// A leaf of cgroup v2 for the keeper itself: controllers reach only the children of a cgroup
/// that has no processes of its own (cgroups(7)). No process has such a name.
pub(crate) const KEEPER_LEAF: &str = "keeper";

/// What reaches the children of a cgroup v2.
const SUBTREE: &str = "cgroup.subtree_control";

/// What systemd writes on the cgroup of a unit with `Delegate=` (systemd.resource-control(5)):
/// the one of the system, and that of a user.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// Lets a controller of cgroup v2 reach the leaves of the node. What is around the node stays as it
/// is unless it was delegated to us: nobody can be put into a cgroup whose children have controllers,
/// and systemd would find no place for the commands of a unit.
pub(super) fn delegate(node: &Path, controller: &str) -> Result<(), String> {
    let outside = node.parent().ok_or("it has no place for the node")?;
    let lists = |file: &str| {
        let there = fs::read_to_string(outside.join(file)).unwrap_or_default();
        there.split_ascii_whitespace().any(|name| name == controller)
    };
    let shown = outside.display();
    if !lists("cgroup.controllers") {
        return Err(format!("{shown} has no {controller} controller (Delegate= of systemd)"));
    }
    if !lists(SUBTREE) {
        if !is_delegated(outside) {
            return Err(format!("{shown} is not delegated to mfserv (Delegate= of systemd)"));
        }
        enter(outside, node, controller)?;
    }
    write(&node.join(SUBTREE), &format!("+{controller}"))
}

/// Whoever manages this cgroup has left it to us: systemd says so on it, or it belongs to our user
/// and the one around it does not. A user's own systemd has all of its cgroups belong to that user.
fn is_delegated(cgroup: &Path) -> bool {
    let is_marked = |name: &&str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(cgroup, *name, &mut value).is_ok() && value == *b"1"
    };
    let user = rustix::process::geteuid().as_raw();
    let owner = |cgroup: &Path| fs::metadata(cgroup).map(|found| found.uid()).ok();
    let around = cgroup.parent().and_then(owner);
    MARKS.iter().any(is_marked) || is_left_to(user, owner(cgroup), around)
}

/// A cgroup with this owner in one with that owner was left to this user. Everything may belong to root.
fn is_left_to(user: u32, owner: Option<u32>, around: Option<u32>) -> bool {
    user != 0 && owner == Some(user) && around != owner
}

/// Lets a controller reach the children of a cgroup. Processes in it forbid that. If it is only this
/// one, it moves.
fn enter(outside: &Path, node: &Path, controller: &str) -> Result<(), String> {
    let children = || write(&outside.join(SUBTREE), &format!("+{controller}"));
    if children().is_ok() {
        return Ok(());
    }
    let own = std::process::id().to_string();
    let living = fs::read_to_string(outside.join("cgroup.procs")).unwrap_or_default();
    if living.lines().any(|pid| pid != own) {
        return Err(format!("{} has other processes too", outside.display()));
    }
    let leaf = node.join(KEEPER_LEAF);
    fs::create_dir_all(&leaf).map_err(|e| format!("{}: {e}", leaf.display()))?;
    write(&leaf.join("cgroup.procs"), "0")?;
    children().inspect_err(|_| {
        // Another process came meanwhile.
        let _ = write(&outside.join("cgroup.procs"), "0");
        containment::remove_leaf(&leaf);
    })
}

/// Makes that undone, so that the node can be removed: the keeper goes back to where it was.
pub(super) fn take_back(node: &Path, controller: &str) {
    let Some(outside) = node.parent().filter(|_| node.join(KEEPER_LEAF).exists()) else { return };
    for cgroup in [node, outside] {
        let _ = write(&cgroup.join(SUBTREE), &format!("-{controller}"));
    }
    let _ = write(&outside.join("cgroup.procs"), "0");
}

#[cfg(test)]
mod tests {
    use mfserv_platform::cgroup;

    use super::*;
    use crate::containment::LAST_TRIES;

    #[test]
    fn a_cgroup_is_left_to_a_user_who_has_it_but_not_the_one_around_it() {
        assert!(is_left_to(1000, Some(1000), Some(0)), "User= and Delegate= of systemd");
        assert!(!is_left_to(1000, Some(1000), Some(1000)), "a unit of the user's own systemd");
        assert!(!is_left_to(1000, Some(0), Some(0)) && !is_left_to(0, Some(0), None));
    }

    #[test]
    fn the_keeper_moves_out_of_the_way_of_a_controller_and_back() {
        #[expect(clippy::disallowed_methods, reason = "another process, since it moves itself")]
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "memory::delegation::tests::moves_out_of_the_way",
            "--ignored",
            "--nocapture",
        ]);
        let ran = child.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }

    /// With any controller that nobody uses: the kernel has the same rules for all.
    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn moves_out_of_the_way() {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let own = cgroup::own_v2().unwrap_or_default();
        let used = read(&own.join(SUBTREE));
        let all = read(&own.join("cgroup.controllers"));
        let free = all.split_whitespace().find(|name| !used.contains(name));
        let outside = own.join(format!("mfserv-test-{}", std::process::id()));
        let made = fs::create_dir(&outside).map_err(|e| e.to_string());
        let on = free.ok_or_else(|| "no controller of cgroup v2 is free".to_owned());
        let on = made
            .and(on)
            .and_then(|name| write(&own.join(SUBTREE), &format!("+{name}")).map(|()| name));
        let controller = match on {
            Ok(controller) => controller,
            Err(why) => {
                let _ = fs::remove_dir(&outside);
                return mfserv_testkit::skipped(&format!("the keeper moves in cgroup v2: {why}"));
            }
        };
        let node = outside.join("mfserv-1");
        let leaf = node.join("app.p.a.1.1");
        fs::create_dir_all(&leaf).unwrap();
        let pid = format!("{}\n", std::process::id());
        write(&outside.join("cgroup.procs"), "0").unwrap();
        assert_eq!(read(&outside.join("cgroup.procs")), pid);
        let refused = delegate(&node, controller);
        let stayed = read(&outside.join("cgroup.procs"));
        // As systemd does it. The kernel lets cgroups have such marks since Linux 5.7.
        let mark = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&outside, MARKS[0], b"1", mark).unwrap();
        let delegated = delegate(&node, controller);
        let moved = read(&node.join(KEEPER_LEAF).join("cgroup.procs"));
        let reached = read(&leaf.join("cgroup.controllers"));
        let again = delegate(&node, controller);
        take_back(&node, controller);
        let back = read(&outside.join("cgroup.procs"));
        containment::remove(&node, LAST_TRIES);
        let is_gone = !node.exists();
        write(&own.join("cgroup.procs"), "0").unwrap();
        containment::remove(&outside, LAST_TRIES);
        let _ = write(&own.join(SUBTREE), &format!("-{controller}"));
        assert!(refused.is_err_and(|why| why.contains("is not delegated")) && stayed == pid);
        assert_eq!((delegated, again), (Ok(()), Ok(())));
        assert_eq!((moved, back), (pid.clone(), pid));
        assert!(reached.contains(controller), "{reached}");
        assert!(is_gone && !outside.exists());
    }
}

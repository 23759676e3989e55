//! File systems, disks and network interfaces.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::telegraf::{MAY_BLOCK, WITHOUT_DATA};

use super::sample::Sources;

/// The most of each kind; others are left out.
const DEVICES_MAX: usize = 64;
/// The unit of `/proc/diskstats`, whatever the disk has.
const SECTOR: u64 = 512;
/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub path: String,
    /// Its device, without `/dev/`.
    pub device: String,
    /// Its kind, for example `ext4`.
    pub kind: String,
    /// `rw` or `ro`.
    pub mode: &'static str,
    /// The name of its logical volume, if it is one.
    pub label: Option<String>,
    /// Its size, bytes.
    pub total: u64,
    /// What is left for users who are not root, bytes.
    pub available: u64,
    /// What is used, bytes.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// A disk or a partition: what it has done since the start of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name, for example `sda`.
    pub name: String,
    /// Its worldwide identifier, if it has one.
    pub wwid: Option<String>,
    /// Read and written requests; those that were merged.
    pub requests: (u64, u64),
    /// Requests that were merged with others.
    pub merged: (u64, u64),
    /// Bytes read and written.
    pub bytes: (u64, u64),
    /// How long reads and writes took, milliseconds.
    pub times_ms: (u64, u64),
    /// Requests in progress now.
    pub in_progress: u64,
    /// How long it was busy, milliseconds; the same weighted by requests.
    pub busy_ms: (u64, u64),
}

/// A network interface: received and sent since the start of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, for example `eth0`.
    pub name: String,
    /// Bytes received and sent.
    pub bytes: (u64, u64),
    /// Packets received and sent.
    pub packets: (u64, u64),
    /// Errors.
    pub errors: (u64, u64),
    /// Packets dropped.
    pub dropped: (u64, u64),
    /// Its speed, Mbit/s; -1: it has none.
    pub speed: i64,
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    number: String,
    path: PathBuf,
    mode: &'static str,
    kind: String,
    source: String,
}

/// Local file systems that hold data, and that of the home whatever its kind, unless it is
/// behind a network.
pub fn file_systems(sources: &Sources) -> Vec<FileSystem> {
    let text = fs::read_to_string(sources.proc.join("self/mountinfo")).unwrap_or_default();
    // Of several at the same place the last one is seen.
    let mounts: BTreeMap<PathBuf, Mount> =
        text.lines().filter_map(mount).map(|mount| (mount.path.clone(), mount)).collect();
    let home = fs::canonicalize(&sources.home).unwrap_or_else(|_| sources.home.clone());
    let of_home = home.ancestors().find(|dir| mounts.contains_key(*dir));
    let is_of_home = |mount: &&Mount| Some(mount.path.as_path()) == of_home;
    let (first, others): (Vec<&Mount>, Vec<&Mount>) = mounts.values().partition(is_of_home);
    let others = others.into_iter().filter(|mount| !WITHOUT_DATA.contains(&mount.kind.as_str()));
    let all = first.into_iter().chain(others).filter(|mount| !may_block(&mount.kind));
    all.filter_map(|mount| sized(mount, &sources.sys)).take(DEVICES_MAX).collect()
}

fn may_block(kind: &str) -> bool {
    MAY_BLOCK.contains(&kind) || kind.starts_with("fuse")
}

/// `36 35 98:0 / /mnt rw,noatime shared:1 - ext3 /dev/sda1 rw`
fn mount(line: &str) -> Option<Mount> {
    let (place, what) = line.split_once(" - ")?;
    let place: Vec<&str> = place.split(' ').collect();
    let mut what = what.split(' ');
    let mut options = place.get(5)?.split(',');
    Some(Mount {
        number: place.get(2)?.to_string(),
        path: PathBuf::from(unescaped(place.get(4)?)),
        mode: if options.any(|option| option == "rw") { "rw" } else { "ro" },
        kind: what.next()?.to_string(),
        source: unescaped(what.next()?),
    })
}

/// Blanks and backslashes are written as `\040`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sized(mount: &Mount, sys: &Path) -> Option<FileSystem> {
    let sizes = rustix::fs::statvfs(&mount.path).ok().filter(|sizes| sizes.f_blocks > 0)?;
    let bytes = |blocks: u64| blocks.saturating_mul(sizes.f_frsize);
    let device = device(mount, sys);
    let label = fs::read_to_string(sys.join("block").join(&device).join("dm/name")).ok();
    Some(FileSystem {
        path: mount.path.to_string_lossy().into_owned(),
        kind: mount.kind.clone(),
        mode: mount.mode,
        label: label.map(|name| name.trim().to_string()).filter(|name| !name.is_empty()),
        device,
        total: bytes(sizes.f_blocks),
        available: bytes(sizes.f_bavail),
        used: bytes(sizes.f_blocks.saturating_sub(sizes.f_bfree)),
        inodes: sizes.f_files,
        inodes_free: sizes.f_ffree,
    })
}

/// The name of the device itself: not of a link, as logical volumes have, nor `root`.
fn device(mount: &Mount, sys: &Path) -> String {
    let real = match mount.source.as_str() {
        "/dev/root" => fs::read_link(sys.join("dev/block").join(&mount.number)).ok(),
        source if source.starts_with("/dev/mapper/") => fs::canonicalize(source).ok(),
        _ => None,
    };
    let name = real.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.unwrap_or_else(|| mount.source.strip_prefix("/dev/").unwrap_or(&mount.source)).to_string()
}

/// The disks of `/proc/diskstats` that have done anything.
pub fn disks(diskstats: &str, sys: &Path) -> Vec<Disk> {
    let lines = diskstats.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = words.get(2)?;
        let numbers: Option<Vec<u64>> =
            words.get(3..14)?.iter().map(|word| word.parse().ok()).collect();
        let of = numbers.filter(|numbers| numbers.iter().any(|number| *number > 0))?;
        let wwid = fs::read_to_string(sys.join("block").join(name).join("wwid")).ok();
        Some(Disk {
            name: name.to_string(),
            wwid: wwid.map(|wwid| wwid.trim().to_string()).filter(|wwid| !wwid.is_empty()),
            requests: (of[0], of[4]),
            merged: (of[1], of[5]),
            bytes: (of[2].saturating_mul(SECTOR), of[6].saturating_mul(SECTOR)),
            times_ms: (of[3], of[7]),
            in_progress: of[8],
            busy_ms: (of[9], of[10]),
        })
    });
    lines.take(DEVICES_MAX).collect()
}

/// The interfaces of `/proc/net/dev` that are up, without the loopback.
pub fn interfaces(dev: &str, sys: &Path) -> Vec<Interface> {
    let lines = dev.lines().filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let (name, class) = (name.trim(), sys.join("class/net").join(name.trim()));
        let words = numbers.split_ascii_whitespace().map(|word| word.parse().ok());
        let of = words.collect::<Option<Vec<u64>>>().filter(|of| of.len() >= 16)?;
        let speed = fs::read_to_string(class.join("speed")).unwrap_or_default();
        is_up(&class, name).then(|| Interface {
            name: name.to_string(),
            bytes: (of[0], of[8]),
            packets: (of[1], of[9]),
            errors: (of[2], of[10]),
            dropped: (of[3], of[11]),
            speed: speed.trim().parse().unwrap_or(-1),
        })
    });
    lines.take(DEVICES_MAX).collect()
}

/// It is up and not the loopback, by its flags (netdevice(7)).
fn is_up(class: &Path, name: &str) -> bool {
    const UP: u32 = 0x1;
    const LOOPBACK: u32 = 0x8;
    let flags = fs::read_to_string(class.join("flags")).ok();
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim().get(2..)?, 16).ok());
    flags.map_or(name != "lo", |flags| flags & (UP | LOOPBACK) == UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(dir: &Path, mountinfo: &str) -> Sources {
        fs::create_dir_all(dir.join("proc/self")).unwrap();
        fs::write(dir.join("proc/self/mountinfo"), mountinfo).unwrap();
        let (proc, sys, home) = (dir.join("proc"), dir.join("sys"), dir.join("a home"));
        fs::create_dir_all(&home).unwrap();
        Sources { proc, sys, utmp: dir.join("utmp"), home }
    }

    #[test]
    fn local_file_systems_are_seen_and_that_of_the_home_whatever_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let at = |name: &str| dir.join(name).display().to_string().replace(' ', "\\040");
        let text = format!(
            "1 0 8:1 / {} rw,relatime shared:1 - ext4 /dev/root rw\n\
             2 1 0:5 / {} ro - tmpfs tmpfs rw\n\
             3 1 0:6 / {} rw - tmpfs tmpfs rw\n\
             4 1 0:7 / {} rw - nfs4 server:/x rw\n\
             5 1 0:8 / {} rw - fuse.sshfs host:/ rw\n\
             6 1 8:2 / /there/is/no/such rw - xfs /dev/sdb rw\n\
             7 1 0:9 / /proc rw - proc proc rw\n",
            at("proc"),
            at("a home"),
            at("other"),
            at("nfs"),
            at("fuse")
        );
        let sources = sources(&dir, &text);
        for name in ["other", "nfs", "fuse", "sys/dev/block"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("../../block/vda", dir.join("sys/dev/block/8:1")).unwrap();
        let found = file_systems(&sources);
        let seen: Vec<_> =
            found.iter().map(|it| (it.path.as_str(), it.device.as_str(), it.mode)).collect();
        let (home, proc) = (dir.join("a home"), dir.join("proc"));
        let expected =
            [(home.to_str().unwrap(), "tmpfs", "ro"), (proc.to_str().unwrap(), "vda", "rw")];
        assert_eq!(seen, expected);
        assert!(found.iter().all(|it| it.total >= it.used && it.total >= it.available));
    }

    #[test]
    fn disks_that_did_nothing_and_interfaces_that_are_down_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let stats = "7 0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
                     8 0 sda 10 1 200 30 40 2 500 60 3 70 80 0 0\n8 1 cut 1\n";
        let found = disks(stats, dir.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].bytes, found[0].requests), ((102_400, 256_000), (10, 40)));
        assert_eq!((found[0].in_progress, found[0].busy_ms), (3, (70, 80)));

        let flags = [("eth0", "0x1003"), ("eth1", "0x1002"), ("lo", "0x9")];
        for (name, flags) in flags {
            let class = dir.path().join("class/net").join(name);
            fs::create_dir_all(&class).unwrap();
            fs::write(class.join("flags"), flags).unwrap();
        }
        fs::write(dir.path().join("class/net/eth0/speed"), "1000\n").unwrap();
        let line = |name| format!("  {name}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
        let text = format!("a|b\n name |x\n{}{}{}", line("eth0"), line("eth1"), line("lo"));
        let found = interfaces(&text, dir.path());
        assert_eq!(found.len(), 1, "{found:?}");
        let (eth0, expected) = (&found[0], ((1, 9), (2, 10), (3, 11), (4, 12)));
        assert_eq!((eth0.bytes, eth0.packets, eth0.errors, eth0.dropped), expected);
        assert_eq!((eth0.name.as_str(), eth0.speed), ("eth0", 1000));
    }

    #[test]
    fn a_machine_with_many_disks_gives_a_bounded_number() {
        let lines: String =
            (0..500).map(|number| format!("8 0 d{number} 1 1 1 1 1 1 1 1 1 1 1\n")).collect();
        assert_eq!(disks(&lines, Path::new("/nowhere")).len(), DEVICES_MAX);
    }
}

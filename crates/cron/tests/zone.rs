//! The zone of the process.

use mfserv_cron::local_zone;

const CHILD: &str = "MFSERV_CRON_ZONE_OF_A_CHILD";

/// What a process with this `TZ` takes for its zone: the offset in summer, or the problem.
fn with(tz: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args(["--exact", "zone::the_zone_is_the_one_that_tz_names", "--nocapture"])
        .env("TZ", tz)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("zone: "));
    line.unwrap_or_else(|| panic!("{text}")).1.to_string()
}

#[test]
fn the_zone_is_the_one_that_tz_names() {
    if std::env::var_os(CHILD).is_some() {
        match local_zone() {
            Ok(zone) => {
                println!("zone: {}", zone.to_offset("2026-07-01T00:00:00Z".parse().unwrap()))
            }
            Err(problem) => println!("zone: {} / {}", problem.what, problem.help),
        }
        return;
    }
    assert_eq!(with("XYZ-7:30"), "+07:30");
    assert_eq!(with(""), "+00");
    let unknown = with("Nowhere/City");
    assert!(unknown.contains("not known / set TZ to a name"), "{unknown}");
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        assert_eq!(with("Asia/Tokyo"), "+09");
        assert_eq!(with(":Asia/Tokyo"), "+09");
    } else {
        println!("SKIPPED: zones by name, without /usr/share/zoneinfo");
    }
}
